"""Every address of the page, with real documents: crawled, with hostile names, at sizes, and its headers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.serve.page.history import PageHistory
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.simulated_processor import START_NS
from tests.support.incidents import INCIDENTS, simulate
from tests.support.pages import HOSTILE, hostile_fleet, serve_page, wide_overview

LINK = re.compile(r'(?:href|src)="([^"]*)"')


@contextmanager
def client_of(overview: dict[str, Any], history: PageHistory) -> Iterator[httpx.Client]:
    with (
        serve_page(lambda: overview, history) as address,
        httpx.Client(base_url=address, timeout=60, trust_env=False, verify=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def processor() -> Iterator[SimulatedProcessor]:
    processor, _ = simulate(INCIDENTS["deploy"], start_ns=START_NS)
    with processor:
        yield processor


@pytest.fixture
def client(processor: SimulatedProcessor) -> Iterator[httpx.Client]:
    with client_of(processor.document(), processor._pipeline.history) as client:
        yield client


def crawl(client: httpx.Client, most: int = 400) -> dict[str, str]:
    """Follows every link from the first page; returns the pages."""
    pages: dict[str, str] = {}
    waiting = ["/", "/setup", "/alerts"]
    while waiting:
        address = waiting.pop()
        if address in pages or len(pages) >= most:
            continue
        answer = client.get(address)
        assert answer.status_code == 200, address[:200]
        pages[address] = answer.text
        links = [html.unescape(link) for link in LINK.findall(answer.text)]
        allowed = ("/", "#", "https://x.example/", "https://jaeger.example/")
        assert all(link.startswith(allowed) and not link.startswith("//") for link in links), links
        waiting += [link for link in links if link.startswith("/") and not link.startswith(("/static/", "/api/"))]
    return pages


def test_every_link_leads_to_a_page(client: httpx.Client) -> None:
    pages = crawl(client)
    kinds = {re.sub(r"/[^/?]+", "/x", address.partition("?")[0]) for address in pages}
    assert kinds == {"/", "/x", "/x/x", "/x/x/x/x"}
    for text in pages.values():
        assert 'lang="en"' in text
        assert text.count("<h1") == 1
        assert " style=" not in text
        assert "<script>" not in text


def test_headers_keep_everything_foreign_out(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.headers["Content-Security-Policy"].startswith(
        "default-src 'none'; style-src 'self'; script-src 'self'"
    )
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "set-cookie" not in answer.headers
    assert client.post("/").status_code == 405
    assert client.head("/").status_code == 200


def test_what_is_not_there(client: httpx.Client) -> None:
    for address in ("/models/nobody", "/models/churn?version=99", "/models/churn/streams/nothing", "/models/churn/x",
                    "/alerts/none"):  # fmt: skip
        answer = client.get(address)
        assert (answer.status_code, "Not here" in answer.text) == (404, True), address
    assert client.get("/static/../routes.py").status_code == 404
    assert client.get("/?page=99999999999999999999").status_code == 200
    assert client.get("/models/churn?span=nonsense&page=-1").status_code == 200
    assert "No model of that name" in client.get("/?q=zzz").text


def test_a_deploy_is_told_on_the_page(client: httpx.Client) -> None:
    text = client.get("/models/churn?version=8").text
    assert "go back to version <bdi>7</bdi>" in text
    assert ">Versions<" in text


def test_the_script_and_the_style_are_ours_and_small(client: httpx.Client) -> None:
    script = client.get("/static/page.js")
    assert len(script.text.splitlines()) <= 60
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/static/page.css").headers["content-type"] == "text/css; charset=utf-8"
    assert "url(" not in client.get("/static/page.css").text


def test_hostile_names_are_harmless_everywhere() -> None:
    with hostile_fleet() as (overview, history), client_of(overview, history) as client:
        pages = crawl(client)
    assert sum(address.startswith("/models/") for address in pages) > len(HOSTILE)
    assert any(address.startswith("/alerts/") for address in pages)
    for address, text in pages.items():
        if address.startswith("/alerts/"):
            for words in ("As it was told", "otel-mlmon alert silence ", "Nobody is notified: "):
                assert words in text
        assert not {"\u202e", "\x00"} & set(text)
        assert "<script>alert" not in text
        assert "' onmouseover='x\"" not in text
        assert len(text) < 300_000


def test_every_runbook_is_a_page_and_none_else_is(client: httpx.Client) -> None:
    for name in ("README", *RULES.list_names()):
        answer = client.get(f"/runbooks/{name}.md")
        assert (answer.status_code, answer.text.count("<h1>")) == (200, 1)
        assert ("<table>" in answer.text, "](" in answer.text) == (True, False)
    for name in ("none.md", "..%2FREADME.md", "data_drift"):
        assert client.get(f"/runbooks/{name}").status_code == 404


def test_a_broken_source_is_an_answer() -> None:
    with client_of({"versions": {"m": {"1": {}}}, "alerts": []}, PageHistory()) as client:
        assert client.get("/static/page.css").status_code == 200


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_many_streams_are_paged(count: int) -> None:
    with client_of(wide_overview(count), PageHistory()) as client:
        answer = client.get("/models/m")
        assert answer.text.count('<th scope="row">') <= 220
        assert len(answer.content) <= 300_000
        last = client.get(f"/models/m?page={count // 200}")
        assert f"Page {count // 200} of {count // 200}" in last.text
