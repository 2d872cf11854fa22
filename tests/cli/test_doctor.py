from __future__ import annotations

import functools
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon import cli
from otel_mlmon.cli import doctor
from otel_mlmon.processor.connections import TlsFiles
from otel_mlmon.processor.serve.access import WebAccess
from otel_mlmon.processor.serve.api import create_app
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.reference.web_port import WebPort
from otel_mlmon.testing import SimulatedProcessor
from tests.support import ports
from tests.support.certificates import make_certificate
from tests.support.incidents import SETUP


@contextmanager
def processor(
    *,
    panes: int,
    setup: dict[str, Any] | None = None,
    token: str | None = None,
    tls: TlsFiles | None = None,
    versions: tuple[str, ...] = ("1",),
) -> Iterator[str]:
    """A web port like that of a processor that has received so many panes."""
    app = create_app(
        lambda: overview_after(panes, versions),
        lambda: b"",
        lambda: True,
        dict,
        relearn=lambda model, streams: None,
        access=lambda: WebAccess(read_token=token),
        setup=lambda: dict(SETUP) if setup is None else setup,
    )
    server = WebServer(app, "127.0.0.1:0", tls=tls)
    try:
        yield f"{'http' if tls is None else 'https'}://{server.start()}"
    finally:
        assert server.stop(30)


@functools.cache
def overview_after(panes: int, versions: tuple[str, ...]) -> dict[str, Any]:
    """The overview of a processor that has received so many panes of each version."""
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 100}}}}) as simulated:
        for _ in range(panes):
            simulated.now_ns += 10 * 10**9
            for version in versions:
                simulated.send_counts(
                    "fraud",
                    version=version,
                    labels={"ok": 90, "no": 10},
                    features={"age": [1.0, 2.0] * 50},
                    durations_s=[0.01] * 100,
                )
            simulated.advance()
        return simulated.document()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An OTLP endpoint that listens, set in the environment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        yield endpoint


def diagnose(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_a_processor_in_which_all_works(capsys: pytest.CaptureFixture[str], listener: str) -> None:
    with processor(panes=40) as url:
        code, document = diagnose(capsys, "--url", url)
        assert (code, document["works"], document["next"]) == (0, True, None)
        assert [step["state"] for step in document["steps"]] == ["works"] * 5
        assert cli.main(["doctor", "--url", url]) == 0
    text = capsys.readouterr().out
    assert text.endswith("Nothing to do: all five steps work.\n")
    assert f"+ endpoint: OTEL_EXPORTER_OTLP_ENDPOINT is {listener}, and something listens there" in text


def test_the_one_next_thing_where_nobody_is_told(capsys: pytest.CaptureFixture[str], listener: str) -> None:
    setup = {**SETUP, "notifiers": [{"name": "log-0", "kind": "log", "pending": 0, "outcomes": {}}]}
    with processor(panes=40, setup=setup) as url:
        code, document = diagnose(capsys, "--url", url)
    assert (code, document["next"]["name"]) == (0, "Alerts")
    assert document["next"]["text"] == "alerts are written to the processor's log only"


def test_a_processor_without_telemetry(capsys: pytest.CaptureFixture[str], listener: str) -> None:
    with processor(panes=0) as url:
        code, document = diagnose(capsys, "--url", url)
    assert (code, document["steps"][0]["text"]) == (1, "no telemetry of a model has arrived")
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in document["next"]["todo"]


def test_no_processor_at_the_address_of_the_configuration(
    capsys: pytest.CaptureFixture[str], listener: str, tmp_path: Path
) -> None:
    file = tmp_path / "mlmon.yaml"
    file.write_text(f'web: {{listen: "0.0.0.0:{ports.free_port()}"}}')
    code, document = diagnose(capsys, "--config", str(file))
    assert code == 1
    assert [check["is_good"] for check in document["checks"]] == [True, False, True]
    assert document["checks"][1]["text"].startswith("nothing answers at http://127.0.0.1:")
    assert document["next"]["text"] == "no processor was found"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("OTEL_SDK_DISABLED", "TRUE", "OTEL_SDK_DISABLED is true: nothing is sent"),
        ("OTEL_METRICS_EXPORTER", "none", "OTEL_METRICS_EXPORTER is none: no metrics are sent"),
        ("OTEL_METRICS_EXPORTER", " Console , prometheus",
         "OTEL_METRICS_EXPORTER is console,prometheus: no metrics are sent over OTLP"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "OTEL_EXPORTER_OTLP_ENDPOINT is http://, which is no address"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:x",
         "OTEL_EXPORTER_OTLP_ENDPOINT is http://127.0.0.1:x, which is no address: Port could not be cast to integer "
         "value as 'x'"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:4318",
         "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is http://127.0.0.1:4318, which is usually the port of http/protobuf, "
         "and the protocol is grpc by default"),
    ],
)  # fmt: skip
def test_an_environment_that_sends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, listener: str, name: str, value: str, text: str
) -> None:
    monkeypatch.setenv(name, value)
    with processor(panes=40) as url:
        code, document = diagnose(capsys, "--url", url)
    assert (code, document["works"]) == (1, False)
    names = ("environment", "endpoint")
    faults = [check for check in document["checks"] if check["name"] in names and not check["is_good"]]
    assert faults[0]["text"] == text
    # The processor works: what keeps the application from sending is the one next thing.
    assert (document["next"]["text"], document["next"]["todo"]) == (text, faults[0]["todo"])
    assert faults[0]["todo"]


def test_what_answers_is_something_else(capsys: pytest.CaptureFixture[str], listener: str) -> None:
    server = WebServer(lambda scope, receive, send: _answer(send), "127.0.0.1:0")
    try:
        code, document = diagnose(capsys, "--url", f"http://{server.start()}")
    finally:
        assert server.stop(30)
    assert code == 1
    assert "is no processor" in document["checks"][0]["text"]
    assert document["next"]["todo"].startswith("Another program has this port: give the processor's with --url")


async def _answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_wrong_configuration_is_wrong_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mlmon.yaml"
    file.write_text("web: {liste: 1}")
    assert cli.main(["doctor", "--config", str(file)]) == 2
    assert "liste" in capsys.readouterr().err


TOKEN = "r" * 20


def test_a_processor_that_asks_for_a_token_is_given_it(
    capsys: pytest.CaptureFixture[str], listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_MLMON_READ_TOKEN", raising=False)
    with processor(panes=40, token=TOKEN) as url:
        code, document = diagnose(capsys, "--url", url)
        assert (code, document["checks"][0]["text"]) == (
            1,
            f"the processor at {url} asks for the token of its readers: --token, or OTEL_MLMON_READ_TOKEN",
        )
        assert document["next"]["todo"] == "Give its web.read_token with --token, or in OTEL_MLMON_READ_TOKEN."
        assert diagnose(capsys, "--url", url, "--token", TOKEN)[0] == 0
        monkeypatch.setenv("OTEL_MLMON_READ_TOKEN", TOKEN)
        assert diagnose(capsys, "--url", url)[0] == 0


def test_the_token_and_the_certificate_of_the_configuration_are_used(
    capsys: pytest.CaptureFixture[str], listener: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_MLMON_READ_TOKEN", raising=False)
    made, other = make_certificate(tmp_path, "processor"), make_certificate(tmp_path, "other")
    with processor(panes=40, token=TOKEN, tls=TlsFiles(certificate=made.certificate, key=made.key)) as url:
        file = tmp_path / "mlmon.yaml"

        def configure(certificate: Path, key: Path) -> None:
            tls = {"certificate": str(certificate), "key": str(key)}
            web = {"listen": url.removeprefix("https://"), "read_token": TOKEN, "tls": tls}
            file.write_text(json.dumps({"web": web}))

        configure(made.certificate, made.key)
        assert diagnose(capsys, "--config", str(file))[0] == 0
        assert diagnose(capsys, "--url", url, "--token", TOKEN, "--ca", str(made.certificate))[0] == 0
        for wrong in (("--url", url), ("--url", url, "--ca", str(other.certificate))):
            code, document = diagnose(capsys, *wrong, "--token", TOKEN)
            assert code == 1
            assert "CERTIFICATE_VERIFY_FAILED" in document["checks"][0]["text"]
            assert document["next"]["todo"] == "Give the authority of its certificate with --ca."
        configure(other.certificate, other.key)
        assert diagnose(capsys, "--config", str(file))[0] == 1
    assert cli.main(["doctor", "--url", url, "--ca", str(tmp_path / "none.pem")]) == 2


def test_every_version_is_looked_at(capsys: pytest.CaptureFixture[str], listener: str) -> None:
    seen: list[Any] = []
    with processor(panes=40, versions=("1", "2")) as url:
        overview = doctor._read_processor_setup(WebPort(address=url, timeout_s=30.0))
        assert isinstance(overview, tuple)
        seen += overview[0]["versions"]["fraud"]
        assert {model["version"] for model in overview[0]["versions"]["fraud"].values()} == {"1", "2"}
    assert sorted(seen) == ["1", "2"]


def test_an_endpoint_that_refuses_is_the_one_next_thing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint := f"http://127.0.0.1:{ports.free_port()}")
    with processor(panes=40) as url:
        code, document = diagnose(capsys, "--url", url)
        assert cli.main(["doctor", "--url", url]) == 1
    assert (code, document["next"]["state"]) == (1, "broken")
    assert document["next"]["text"].startswith(f"OTEL_EXPORTER_OTLP_ENDPOINT is {endpoint}, and nothing can be reached")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("Start the Collector or the processor there, or set OTEL_EXPORTER_OTLP_ENDPOINT.")


def test_a_web_port_that_is_switched_off(capsys: pytest.CaptureFixture[str], listener: str, tmp_path: Path) -> None:
    file = tmp_path / "mlmon.yaml"
    file.write_text("web: {listen: null}")
    code, document = diagnose(capsys, "--config", str(file))
    assert (code, document["next"]["todo"]) == (1, "Set web.listen in the configuration, such as 127.0.0.1:8080.")
