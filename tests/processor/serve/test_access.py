from __future__ import annotations

import base64

import httpx
import pytest

from otel_mlmon.processor.serve.access import WebAccess
from tests.processor.serve.test_api import Source, serving

READ, ADMIN = "r" * 20, "a" * 20


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "is_allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("localhost.:8080", True),
        ("127.0.0.1:8080", True),
        ("10.2.3.4", True),
        ("[::1]:8080", True),
        ("[fe80::1]", True),
        ("mlmon.example.org:8080", True),
        ("a.b.corp.example", True),
        ("corp.example", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("mlmon.example.org.evil.example", False),
        ("", False),
        (":8080", False),
        ("[evil.example]", False),
        ("127.0.0.1@evil.example", False),
    ],
)
def test_only_known_names_and_addresses_are_hosts(header: str, is_allowed: bool) -> None:
    access = WebAccess(hosts=("mlmon.example.org", "*.corp.example"))
    assert access.allows_host(header) is is_allowed


@pytest.mark.parametrize(
    ("header", "is_allowed"),
    [
        (f"Bearer {READ}", True),
        (f"bearer {READ} ", True),
        (f"Bearer {ADMIN}", True),
        (basic(READ), True),
        (basic(READ, user=""), True),
        ("", False),
        ("Bearer", False),
        (f"Bearer {READ}x", False),
        (READ, False),
        (f"Token {READ}", False),
        (basic(""), False),
        (basic("wrong"), False),
        ("Basic ***", False),
        ("Bearer \u00e9", False),
    ],
)
def test_a_reader_brings_the_token_as_bearer_or_as_password(header: str, is_allowed: bool) -> None:
    assert WebAccess(read_token=READ, admin_token=ADMIN).allows_reading(header) is is_allowed
    assert WebAccess(admin_token=ADMIN).allows_reading(header)


def test_a_port_with_a_token_answers_health_checks_and_nobody_else() -> None:
    source = Source(access=WebAccess(read_token=READ, admin_token=ADMIN))
    with serving(source) as client:
        refused = {path: client.get(path) for path in ("/metrics", "/api/v1/models", "/api/v1/alerts", "/nowhere")}
        assert {path: answer.status_code for path, answer in refused.items()} == dict.fromkeys(refused, 401)
        challenge = 'Bearer realm="otel-mlmon", Basic realm="otel-mlmon"'
        assert refused["/metrics"].headers["www-authenticate"] == challenge
        assert READ not in refused["/metrics"].text
        assert client.get("/metrics", headers={"authorization": f"Bearer {READ}"}).status_code == 200
        assert client.get("/api/v1/models", auth=httpx.BasicAuth("me", READ)).status_code == 200
        for path in ("/healthz", "/readyz"):
            assert client.get(path, headers={"host": "10.0.0.1"}).status_code == 200
        # Basic, which browsers send by themselves, changes nothing, and neither does the reader's token.
        for headers in ({"authorization": basic(ADMIN)}, {"authorization": f"Bearer {READ}"}):
            assert client.post("/api/v1/relearn/fraud", headers=headers).status_code == 401
        source.access = WebAccess()  # as a reload does it
        assert client.get("/metrics").status_code == 200


def test_another_host_reads_nothing_and_probes_are_answered_whatever_they_call_it() -> None:
    with serving(Source(access=WebAccess(hosts=("mlmon.example",), admin_token=ADMIN))) as client:
        evil = {"host": "evil.example"}
        refused = client.get("/api/v1/models", headers=evil)
        assert (refused.status_code, refused.json()["reason"]) == (421, "host")
        assert (
            client.post("/api/v1/relearn/fraud", headers={**evil, "authorization": f"Bearer {ADMIN}"}).status_code
            == 421
        )
        assert client.get("/api/v1/models", headers={"host": "mlmon.example:8080"}).status_code == 200
        assert client.get("/readyz", headers=evil).status_code == 200
