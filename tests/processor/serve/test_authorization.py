"""Who may have references learned again, and what is answered to all others."""

from __future__ import annotations

from typing import Any

import pytest

from otel_mlmon.processor.serve.access import WebAccess
from otel_mlmon.processor.serve.references import REASONS
from otel_mlmon.types import ModelKey
from tests.processor.serve.test_api import Source, serving
from tests.support.standing import Standing

TOKEN = "a-token-of-24-characters"
MODEL = ModelKey("fraud", "2", "staging")


def standing() -> dict[str, dict[str, Standing]]:
    return {
        "fraud@staging": {"2": Standing(model=MODEL, relearnable=("prediction.label", "input.age"))},
        "fixed": {"1": Standing(), "2": Standing()},
    }


def ask(
    source: Source, path: str = "fraud%40staging", authorization: str | None = f"Bearer {TOKEN}"
) -> tuple[int, dict[str, Any], Any]:
    headers = {} if authorization is None else {"Authorization": authorization}
    with serving(source) as client:
        answer = client.post(f"/api/v1/relearn/{path}", headers=headers)
    return answer.status_code, answer.json(), answer.headers


@pytest.fixture
def asked() -> list[tuple[ModelKey, tuple[str, ...]]]:
    return []


@pytest.fixture
def source(asked: list[tuple[ModelKey, tuple[str, ...]]]) -> Source:
    return Source(
        references=standing,
        relearn=lambda model, streams: asked.append((model, streams)),
        access=WebAccess(admin_token=TOKEN),
    )


def test_the_administrator_has_all_or_some_references_learned_again(
    source: Source, asked: list[tuple[ModelKey, tuple[str, ...]]]
) -> None:
    status, document, headers = ask(source)
    streams = ["input.age", "prediction.label"]
    assert (status, document) == (200, {"model": "fraud@staging", "version": "2", "streams": streams})
    assert headers["cache-control"] == "no-store"
    assert ask(source, "fraud%40staging?version=2&stream=input.age", f"bearer {TOKEN}")[0] == 200
    assert asked == [(MODEL, ("input.age", "prediction.label")), (MODEL, ("input.age",))]


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, 'Bearer realm="otel-mlmon"'),
        ("", 'Bearer realm="otel-mlmon"'),
        (TOKEN, 'Bearer realm="otel-mlmon"'),
        (f"Basic {TOKEN}", 'Bearer realm="otel-mlmon"'),
        ("Bearer", 'Bearer realm="otel-mlmon", error="invalid_token"'),
        (f"Bearer {TOKEN[:-1]}", 'Bearer realm="otel-mlmon", error="invalid_token"'),
        (f"Bearer {TOKEN}x", 'Bearer realm="otel-mlmon", error="invalid_token"'),
        ("Bearer \xff\xfe", 'Bearer realm="otel-mlmon", error="invalid_token"'),
    ],
)
def test_without_the_token_nothing_is_changed_and_nothing_told(
    source: Source, asked: list[tuple[ModelKey, tuple[str, ...]]], authorization: str | None, challenge: str
) -> None:
    for path in ("fraud%40staging", "unknown"):
        with serving(source) as client:
            answer = client.post(
                f"/api/v1/relearn/{path}?token={TOKEN}",
                headers=[] if authorization is None else [(b"authorization", authorization.encode("latin-1"))],
            )
        assert (answer.status_code, answer.json()["reason"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == challenge
        assert TOKEN not in answer.text
    assert asked == []


def test_where_no_token_is_configured_nobody_may(source: Source, asked: list[tuple[ModelKey, tuple[str, ...]]]) -> None:
    source.access = WebAccess()
    status, document, _ = ask(source)
    assert (status, document["reason"], "web.admin_token" in document["error"]) == (403, "no_admin_token", True)
    assert asked == []


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("unknown", 404, "unknown_model"),
        ("fixed", 409, "several_versions"),
        ("fixed?version=3", 404, "unknown_version"),
        ("fixed?version=1", 409, "not_learned"),
        ("fraud%40staging?stream=input.age&stream=latency", 409, "not_learned"),
    ],
)
def test_what_cannot_be_learned_again_is_said(
    source: Source, asked: list[tuple[ModelKey, tuple[str, ...]]], path: str, status: int, reason: str
) -> None:
    code, document, _ = ask(source, path)
    assert (code, document["reason"], asked) == (status, reason, [])
    assert reason in REASONS


def test_reading_the_path_is_refused_with_its_method(source: Source) -> None:
    with serving(source) as client:
        answer = client.get("/api/v1/relearn/fixed")
    assert (answer.status_code, answer.json()) == (405, {"error": "This path takes POST only."})


@pytest.mark.guarded
def test_a_fault_of_ours_is_503(source: Source) -> None:
    def fail(model: ModelKey, streams: tuple[str, ...]) -> None:
        raise ZeroDivisionError

    source.relearn = fail
    status, document, _ = ask(source)
    assert (status, "ZeroDivision" in str(document)) == (503, False)
