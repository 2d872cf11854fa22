"""Serves the web pages: their addresses, and how their templates are rendered.

Nothing here changes anything: every address answers GET and HEAD only. A policy without inline styles and scripts is
sent with each page, which asks no other host for anything and sets no cookie.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import name_execution_provider
from otel_mlmon.processor.serve.page import alert_view, findings, home_view, model_view, stream_view, words
from otel_mlmon.processor.serve.page.condition import count_urgent_problems
from otel_mlmon.processor.serve.page.history import SPANS, PageHistory, TimeRange
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.version import __version__

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
MAX_LISTENERS: Final = 20
"""Open pages that are told of changes; others are up to date when they are loaded again."""
CHECK_S: Final = 0.5
STATIC: Final = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
MAX_QUERY: Final = 200

Document = Mapping[str, Any]


class PageMissingError(LookupError):
    """An error: no web page has the requested address.

    Args:
        message: Says what is missing.
    """


class WebPage:
    """Renders the web pages of the processor.

    Args:
        read: Returns the present documents.
        setup: Returns the document of `/api/v1/setup`.
        history: What the documents said before.
        clock_ns: The present time, Unix nanoseconds.
    """

    def __init__(
        self,
        read: Callable[[], Document],
        setup: Callable[[], Document],
        history: PageHistory,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._read = read
        self._setup = setup
        self._history = history
        self._clock_ns = clock_ns
        self._listeners = 0
        self._environment = _create_template_environment()
        self._runbooks = _load_runbooks()
        self._static = {
            name: files(__package__).joinpath("static", name).read_text(encoding="utf-8") for name in STATIC
        }

    def create_routes(self) -> list[BaseRoute]:
        """Returns the routes of all web pages."""
        return [
            Route("/", self._make_handler(self._show_home)),
            Route("/models/{path:path}", self._make_handler(self._show_model)),
            Route("/alerts", self._make_handler(self._show_alerts)),
            Route("/alerts/{id}", self._make_handler(self._show_alert)),
            Route("/runbooks/{name}", self._make_handler(self._show_runbook)),
            Route("/setup", self._make_handler(self._show_setup)),
            Route("/updates", self._stream_updates),
            Route("/static/{name}", self._serve_static),
        ]

    def _make_handler(self, build: Callable[[Request, PageSource], str]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            with guard("serve.page"):
                source = PageSource(
                    overview=self._read(), setup=self._setup(), history=self._history, now_ns=self._clock_ns()
                )
                try:
                    return _build_html_response(build(request, source))
                except PageMissingError as missing:
                    text = self._render_page("missing", source, title="Not found", message=str(missing))
                    return _build_html_response(text, status=404)
            return Response("The page cannot be shown; the processor's log says why.\n", 503, media_type="text/plain")

        return answer

    def _show_home(self, request: Request, source: PageSource) -> str:
        query = request.query_params.get("q", "")[:MAX_QUERY]
        values = home_view.build_home_view(source, query=query, page=_read_page_number(request))
        return self._render_page("home", source, title="Models", **values)

    def _show_model(self, request: Request, source: PageSource) -> str:
        segments = _split_model_path(request)
        model_id = words.find_segment_name(segments[0], source.overview.get("versions", {}))
        if model_id is None:
            raise PageMissingError("There is no such model. It may have been silent for long, or never sent anything.")
        versions = source.versions(model_id)
        asked = request.query_params.get("version", "")
        wanted = words.find_segment_name(_normalize_segment(asked), versions) if asked else next(iter(versions))
        if wanted is None:
            raise PageMissingError("There is no such version of this model.")
        document, span = versions[wanted], _read_time_range(request)
        if len(segments) == 1:
            values = model_view.build_model_view(source, model_id, document, span=span, page=_read_page_number(request))
            return self._render_page("model", source, title=words.escape_line(model_id), **values)
        if len(segments) == 3 and segments[1] == "streams":
            names = {stream["stream"]: stream for stream in document["streams"]}
            name = words.find_segment_name(segments[2], names)
            if name is not None:
                values = stream_view.build_stream_view(source, model_id, document, names[name], span=span)
                return self._render_page("stream", source, title=words.escape_line(f"{name} · {model_id}"), **values)
        raise PageMissingError("There is no such stream of this model version.")

    def _show_alerts(self, _: Request, source: PageSource) -> str:
        return self._render_page("alerts", source, title="Alerts", **alert_view.build_alerts_view(source))

    def _show_alert(self, request: Request, source: PageSource) -> str:
        wanted = request.path_params["id"]
        for alert in source.overview["alerts"]:
            if wanted in (alert_view.build_alert_id(alert), alert["fingerprint"]):
                values = alert_view.build_alert_view(source, alert)
                return self._render_page("alert", source, **{**values, "title": words.escape_line(alert["title"])})
        raise PageMissingError("There is no such alert any more. Past alerts are kept for a while only.")

    def _show_runbook(self, request: Request, source: PageSource) -> str:
        name = request.path_params["name"]
        if name not in self._runbooks:
            raise PageMissingError("There is no such runbook. Of a rule that a package added, ask the package.")
        text = Markup(self._runbooks[name])  # noqa: S704 (rendered of our own files, which hold no HTML)
        return self._render_page("runbook", source, title="Runbook", text=text)

    def _show_setup(self, _: Request, source: PageSource) -> str:
        values = findings.build_setup_view(source.overview, source.setup, now_ns=source.now_ns)
        return self._render_page("setup", source, title="Setup", **values)

    def _render_page(self, template: str, source: PageSource, **values: Any) -> str:
        return self._environment.get_template(f"{template}.html.j2").render(
            now_ns=source.now_ns, urgent=count_urgent_problems(source), release=__version__, template=template, **values
        )

    async def _stream_updates(self, request: Request) -> Response:
        if self._listeners >= MAX_LISTENERS:
            return Response(status_code=204)  # the page is up to date when it is loaded again
        return StreamingResponse(self._tell_changes(request), media_type="text/event-stream")

    async def _tell_changes(self, request: Request) -> AsyncIterator[str]:
        self._listeners += 1
        try:
            document = self._read()
            yield "retry: 5000\n\n"
            while not await request.is_disconnected():
                await asyncio.sleep(CHECK_S)
                present = self._read()
                if present is not document:
                    document = present
                    yield "data: changed\n\n"
        finally:
            self._listeners -= 1

    def _serve_static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            return Response("There is no such file.\n", 404, media_type="text/plain")
        return Response(self._static[name], headers={"Cache-Control": "no-cache"}, media_type=STATIC[name])


@functools.cache
def _create_template_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("otel_mlmon.processor.serve.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": words.format_name,
        "percent": words.format_percent,
        "number": words.format_number,
        "rate": words.format_rate,
        "seconds": words.format_seconds,
        "time": words.format_time,
        "state": words.format_state,
        "clean": words.escape_line,
        "lines": words.escape_lines,
        "provider": name_execution_provider,
    }
    environment.globals |= {
        "sign": words.find_state_sign,
        "format_age": words.format_age,
        "format_clock_time": words.format_clock_time,
    }
    return environment


@functools.cache
def _load_runbooks() -> Mapping[str, str]:
    """Renders the runbooks as HTML, by file name: those of the wheel, or docs/runbooks of a checkout."""
    packaged = Path(__file__).with_name("runbooks")
    folder = packaged if packaged.is_dir() else Path(__file__).parents[4] / "docs" / "runbooks"
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    pages = {name: markdown.render(text.replace("](", "](/runbooks/")) for name, text in texts.items()}
    # What is wider than a phone is scrolled, by keyboard too.
    return {name: page.replace("<pre>", '<pre tabindex="0">') for name, page in pages.items()}


def _build_html_response(text: str, status: int = 200) -> Response:
    body = text.encode("utf-8", "replace")
    return Response(body, status, headers={"Content-Security-Policy": POLICY}, media_type="text/html; charset=utf-8")


def _split_model_path(request: Request) -> list[str]:
    """Splits the path of a request after `/models/` into its segments, still encoded, as a name may hold a slash."""
    raw = bytes(request.scope.get("raw_path") or request.scope["path"].encode()).split(b"?")[0]
    return [_normalize_segment(segment, is_encoded=True) for segment in raw.decode("latin-1").split("/")[2:]]


def _normalize_segment(text: str, *, is_encoded: bool = False) -> str:
    """Returns a segment of an address spelled as the pages' own addresses spell it."""
    plain = unquote(text, errors="surrogatepass") if is_encoded else text
    return quote(plain, safe="", errors="surrogatepass")


def _read_page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _read_time_range(request: Request) -> TimeRange:
    wanted = request.query_params.get("span", "")
    return next((span for span in SPANS if span.name == wanted), SPANS[0])
