"""Serves the silences of alerts: lists them, and adds or ends one with the administrator's token.

`GET /api/v1/silences` lists those that are active and those that were over in the last days. `POST` adds one that
begins now; its end is not optional, and it names its author. `DELETE /api/v1/silences/{id}` ends one now.
Source: Prometheus Alertmanager, API v2, silences.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.silence import AlertSilence, SilenceRequest
from otel_mlmon.processor.serve.access import WebAccess
from otel_mlmon.processor.serve.authorization import refuse_unauthorized
from otel_mlmon.types import ModelKey

PATH: Final = "/api/v1/silences"
MAX_BODY_BYTES: Final = 16_384
MAX_TEXT: Final = 500
"""Characters of each text."""
MAX_DURATION_S: Final = 366 * 86_400.0
MAX_ACTIVE: Final = 1000
_KEYS: Final = ("model", "rule", "duration_s", "author", "reason")

Answer = tuple[int, dict[str, Any]]


class SilenceControl:
    """Answers requests of the web port that list, add or end silences of alerts.

    Runs on: threads of the web server.

    Args:
        read: Returns the silences.
        apply: Adds or ends one; returns when that is stored.
        models: Returns the documents of the known models, by id.
        rules: The names of all rules.
        clock_ns: Unix nanoseconds.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[AlertSilence]],
        apply: Callable[[SilenceRequest], None],
        *,
        models: Callable[[], Mapping[str, Mapping[str, Any]]],
        rules: Iterable[str],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._read = read
        self._apply = apply
        self._models = models
        self._rules = tuple(rules)
        self._clock_ns = clock_ns

    def routes(self, access: Callable[[], WebAccess]) -> list[Route]:
        """Returns the routes on silences, of which the changing ones need the administrator's token."""

        def answer(call: Callable[[], Answer]) -> Response:
            with guard("serve.api"):
                status, document = call()
                return JSONResponse(document, status_code=status)
            return JSONResponse({"error": "The processor failed to store or read it; try again."}, status_code=503)

        def show(_: Request) -> Response:
            return answer(self.list_silences)

        async def add(request: Request) -> Response:
            refusal = refuse_unauthorized(request, access().admin_token)
            if refusal is not None:
                return refusal
            body = b""
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    status, document = _build_silence_refusal(
                        f"The body is larger than {MAX_BODY_BYTES} bytes.", status=413
                    )
                    return JSONResponse(document, status_code=status)
            return await run_in_threadpool(answer, lambda: self.add_silence(body))

        def end(request: Request) -> Response:
            refusal = refuse_unauthorized(request, access().admin_token)
            return refusal or answer(lambda: self.end_silence(request.path_params["id"]))

        return [
            Route(PATH, show),
            Route(PATH, add, methods=["POST"]),
            Route(f"{PATH}/{{id}}", end, methods=["DELETE"]),
        ]

    def list_silences(self) -> Answer:
        """Returns the HTTP status and a JSON document of all silences of alerts, those that end last first."""
        now_ns = self._clock_ns()
        silences = sorted(self._read(), key=lambda silence: (-silence.end_ns, silence.id))
        return 200, {"silences": [silence.to_dict(now_ns) for silence in silences]}

    def add_silence(self, body: bytes) -> Answer:
        """Adds the silence of a request; returns the HTTP status and a JSON document with the models it applies to."""
        fields, fault = _parse_silence_body(body)
        if fault:
            return _build_silence_refusal(fault)
        now_ns = self._clock_ns()
        silence = AlertSilence(
            id=secrets.token_hex(4),
            model=fields["model"],
            rule=fields["rule"],
            start_ns=now_ns,
            end_ns=now_ns + round(fields["duration_s"] * 1e9),
            author=fields["author"],
            reason=fields["reason"],
        )
        if not any(silence.matches_rule(rule) for rule in self._rules):
            return _build_silence_refusal(f"There is no rule {silence.rule!r}. Rules are: {', '.join(self._rules)}.")
        if sum(other.is_active(now_ns) for other in self._read()) >= MAX_ACTIVE:
            return _build_silence_refusal(
                f"There are {MAX_ACTIVE} active silences already; end some, or use a pattern.", status=409
            )
        self._apply(SilenceRequest(silence=silence))
        names = {
            model_id: ModelKey(model["name"], "", model["environment"]) for model_id, model in self._models().items()
        }
        models = sorted(model_id for model_id, model in names.items() if silence.matches_model(model))
        return 201, {**silence.to_dict(now_ns), "is_active": True, "models": models}

    def end_silence(self, silence_id: str) -> Answer:
        """Ends a silence of alerts now, so that what still fires is notified at once."""
        now_ns = self._clock_ns()
        silence = next((silence for silence in self._read() if silence.id == silence_id), None)
        if silence is None:
            return _build_silence_refusal(f"There is no silence {silence_id!r}.", status=404, reason="unknown_silence")
        if silence.end_ns <= now_ns:
            return _build_silence_refusal(f"The silence {silence_id} is over already.", status=409, reason="over")
        self._apply(SilenceRequest(expired_id=silence_id))
        return 200, {**silence.to_dict(now_ns), "end_ns": now_ns, "is_active": False}


def _parse_silence_body(body: bytes) -> tuple[dict[str, Any], str]:
    """Reads the body of a request for a silence; returns its fields, and its mistake or an empty text."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return {}, 'The body must be a JSON object such as {"model": "fraud", "duration_s": 7200, "author": "ann"}.'
    unknown = [name for name in document if name not in _KEYS]
    if unknown:
        return {}, f"{unknown[0]!r} is not a known key; known are {', '.join(_KEYS)}."
    fields = {"rule": "*", "reason": "", **document}
    for name in ("model", "rule", "author", "reason"):
        text = fields.get(name)
        is_needed = name != "reason"
        if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable() or (is_needed and not text):
            size = f"1 to {MAX_TEXT}" if is_needed else f"at most {MAX_TEXT}"
            return {}, f"{name} must be a text of {size} printable characters."
    duration_s: Any = fields.get("duration_s")
    is_number = isinstance(duration_s, (int, float)) and not isinstance(duration_s, bool)
    if not is_number or not 1.0 <= duration_s <= MAX_DURATION_S:  # a NaN is neither
        return {}, f"duration_s must be a number of seconds from 1 to {MAX_DURATION_S:.0f}: every silence has an end."
    return fields, ""


def _build_silence_refusal(message: str, *, status: int = 400, reason: str = "invalid") -> Answer:
    return status, {"error": message, "reason": reason}
