from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from otel_mlmon.processor.alert.silence import AlertSilence, SilenceRequest
from otel_mlmon.processor.serve.access import WebAccess
from otel_mlmon.processor.serve.api import create_app
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.processor.serve.silences import MAX_ACTIVE, MAX_BODY_BYTES, PATH, SilenceControl

ADMIN, READER = "a" * 32, "r" * 32
NOW_NS = 1_763_820_012_000_000_000
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}
ASKED = {"model": "fraud", "rule": "data_*", "duration_s": 7200, "author": "ann", "reason": "a known outage"}


class Board:
    """Silences in memory."""

    def __init__(self) -> None:
        self.silences: list[AlertSilence] = []
        self.ended: list[str] = []

    def apply(self, request: SilenceRequest) -> None:
        if request.silence is not None:
            self.silences.append(request.silence)
        else:
            self.ended.append(request.expired_id)


def app_of(board: Board) -> Starlette:
    models = {
        "fraud": {"name": "fraud", "environment": ""},
        "fraud@staging": {"name": "fraud", "environment": "staging"},
        "churn": {"name": "churn", "environment": ""},
    }
    control = SilenceControl(
        lambda: board.silences,
        board.apply,
        models=lambda: models,
        rules=("latency", "data_drift"),
        clock_ns=lambda: NOW_NS,
    )
    access = WebAccess(read_token=READER, admin_token=ADMIN)
    return create_app(
        lambda: {"models": {}, "alerts": []}, bytes, lambda: True, dict, relearn=lambda *_: None,
        silences=control, access=lambda: access,
    )  # fmt: skip


@pytest.fixture
def board() -> Board:
    return Board()


@contextmanager
def serving(board: Board) -> Iterator[httpx.Client]:
    server = WebServer(app_of(board), "127.0.0.1:0")
    try:
        with httpx.Client(base_url=f"http://{server.start()}", timeout=30, headers=AS_ADMIN, verify=False) as client:
            yield client
    finally:
        assert server.stop()


@pytest.fixture
def client(board: Board) -> Iterator[httpx.Client]:
    with serving(board) as client:
        yield client


def test_a_silence_is_added_listed_and_ended(client: httpx.Client, board: Board) -> None:
    answer = client.post(PATH, json=ASKED)
    (silence,) = board.silences
    document = {
        "id": silence.id, "model": "fraud", "rule": "data_*", "start_ns": NOW_NS, "end_ns": NOW_NS + 7200 * 10**9,
        "author": "ann", "reason": "a known outage", "is_active": True,
    }  # fmt: skip
    assert (answer.status_code, answer.json()) == (201, {**document, "models": ["fraud", "fraud@staging"]})
    assert client.get(PATH, headers={"Authorization": f"Bearer {READER}"}).json() == {"silences": [document]}
    ended = client.delete(f"{PATH}/{silence.id}")
    assert (ended.status_code, ended.json()) == (200, {**document, "end_ns": NOW_NS, "is_active": False})
    assert board.ended == [silence.id]


@pytest.mark.parametrize("token", ["", READER, "wrong"])
def test_without_the_administrators_token_nothing_changes(client: httpx.Client, board: Board, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}" if token else ""}
    answers = [client.post(PATH, json=ASKED, headers=headers), client.delete(f"{PATH}/x", headers=headers)]
    assert [(answer.status_code, answer.json()["reason"]) for answer in answers] == [(401, "unauthorized")] * 2
    assert (board.silences, board.ended) == ([], [])


def test_without_a_token_nobody_reads(client: httpx.Client) -> None:
    assert client.get(PATH, headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"duration_s": None}, "duration_s must be a number of seconds from 1 to 31622400: every silence has an end."),
        ({"duration_s": 0.5}, "duration_s must be"),
        ({"duration_s": 10**400}, "duration_s must be"),
        ({"duration_s": True}, "duration_s must be"),
        ({"duration_s": "2h"}, "duration_s must be"),
        ({"model": ""}, "model must be a text of 1 to 500 printable characters."),
        ({"author": None}, "author must be"),
        ({"reason": "a\nb"}, "reason must be a text of at most 500 printable characters."),
        ({"reason": "x" * 501}, "reason must be"),
        ({"rule": "latncy"}, "There is no rule 'latncy'. Rules are: latency, data_drift."),
        ({"for": "2h"}, "'for' is not a known key; known are model, rule, duration_s, author, reason."),
    ],
)
def test_what_cannot_be_a_silence_is_refused_in_words(
    client: httpx.Client, board: Board, changed: dict[str, Any], message: str
) -> None:
    body = {name: value for name, value in {**ASKED, **changed}.items() if value is not None}
    answer = client.post(PATH, content=json.dumps(body))
    assert (answer.status_code, answer.json()["reason"], board.silences) == (400, "invalid", [])
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"{", b"[" * 10_000, b'"x"'])
def test_a_body_that_is_no_object_is_refused(client: httpx.Client, content: bytes) -> None:
    answer = client.post(PATH, content=content)
    assert (answer.status_code, answer.json()["error"][:27]) == (400, "The body must be a JSON obj")


def test_a_body_that_is_too_large_is_refused(client: httpx.Client) -> None:
    assert client.post(PATH, content=b" " * (MAX_BODY_BYTES + 1)).status_code == 413


def test_a_silence_that_is_unknown_or_over_cannot_be_ended(client: httpx.Client, board: Board) -> None:
    board.silences.append(AlertSilence(id="old", start_ns=NOW_NS - 9, end_ns=NOW_NS, author="ann"))
    answers = [client.delete(f"{PATH}/{name}") for name in ("old", "other")]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (409, {"error": "The silence old is over already.", "reason": "over"}),
        (404, {"error": "There is no silence 'other'.", "reason": "unknown_silence"}),
    ]


def test_there_is_an_end_to_how_many_there_are(client: httpx.Client, board: Board) -> None:
    board.silences += [
        AlertSilence(id=str(number), start_ns=NOW_NS, end_ns=NOW_NS + 1, author="ann") for number in range(MAX_ACTIVE)
    ]
    assert client.post(PATH, json=ASKED).status_code == 409


@pytest.mark.guarded
def test_a_fault_of_ours_is_an_answer(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: SilenceRequest) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(board, "apply", fail)
    with serving(board) as client:
        assert client.post(PATH, json=ASKED).status_code == 503
