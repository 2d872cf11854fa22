"""The demo's glue: arguments, configuration, environment, reading the API, output, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon.cli import INTERRUPTED, demo, main
from otel_mlmon.demo import story
from otel_mlmon.demo.child import ChildFailedError
from otel_mlmon.errors import DependencyMissingError
from otel_mlmon.processor.config.load import load_config
from tests.support.api_documents import alert_document, model_document


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="otel-mlmon demo")
    demo.add_arguments(parser)
    return parser.parse_args(arguments)


@contextmanager
def api(answers: Mapping[str, tuple[int, Any]]) -> Iterator[str]:
    """A real server of fixed answers, by path: status and JSON body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is for failures."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_arguments() -> None:
    assert vars(parse()) == {"json": False, "keep": False, "seconds_per_act": 8.0}
    assert vars(parse("--json", "--seconds-per-act", "2.5")) == {"json": True, "keep": False, "seconds_per_act": 2.5}
    assert parse("--keep").keep is True


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_an_act_takes_a_positive_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(f"--seconds-per-act={text}")
    assert "--seconds-per-act" in capsys.readouterr().err


def test_a_missing_extra_is_named_with_its_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.check_required_modules(("json", "os"))
    with pytest.raises(DependencyMissingError, match=r'needs not_there, nor_this: pip install "otel-mlmon\[all\]"'):
        demo.check_required_modules(("json", "not_there", "nor_this"))
    monkeypatch.setattr(demo, "REQUIRED_MODULES", ("not_there",))
    assert main(["demo", "--json"]) == 2
    assert capsys.readouterr() == ("", 'The demo needs not_there: pip install "otel-mlmon[all]"\n')


def test_the_environment_of_a_child_is_free_of_the_users_telemetry() -> None:
    inherited = {
        "PATH": "/bin",
        "OTEL_SDK_DISABLED": "true",
        "OTEL_MLMON_MODEL_NAME": "mine",
        "SENTRY_DSN": "https://x@y/1",
        "no_proxy": "internal",
    }
    local = {"no_grpc_proxy": "127.0.0.1", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    assert demo.build_child_environment(inherited) == {"PATH": "/bin", **local}
    assert demo.build_child_environment(inherited, endpoint="http://127.0.0.1:4317") == {
        "PATH": "/bin",
        **local,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_SERVICE_NAME": "digits",
    }


def test_the_configuration_uses_free_ports_on_loopback_only(tmp_path: Path) -> None:
    config = demo.build_demo_config(tmp_path / "state")
    assert {*config["receiver"].values(), *config["web"].values()} == {"127.0.0.1:0"}
    assert config["storage"] == {"path": str(tmp_path / "state")}


def test_the_processor_takes_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "mlmon.yaml"
    file.write_text(json.dumps(demo.build_demo_config(tmp_path / "state"), indent=2))
    loaded = load_config(file, {})
    assert (loaded.windows.pane_s, loaded.windows.lateness_s, loaded.windows.rolling_s) == (0.5, 0.5, 5.0)
    assert loaded.find_model_section("digits").reference.learn == 2000


def test_the_reader_reads_a_moment() -> None:
    model, alert = model_document(), alert_document("data_drift")
    with (
        api({"/api/v1/models/digits": (200, model), "/api/v1/alerts": (200, {"alerts": [alert]})}) as address,
        demo.open_snapshot_reader(address) as read,
    ):
        moment = read("shift")
    assert moment.at_ns > 0
    assert replace(moment, at_ns=0) == story.ApiSnapshot(at_ns=0, act="shift", model=model, alerts=(alert,))


def test_a_model_that_is_not_known_yet_is_no_model() -> None:
    unknown = {"error": "no such model"}
    with (
        api({"/api/v1/models/digits": (404, unknown), "/api/v1/alerts": (200, {"alerts": []})}) as address,
        demo.open_snapshot_reader(address) as read,
    ):
        moment = read("learning")
    assert (moment.model, moment.alerts) == (None, ())


def test_a_processor_that_answers_wrongly_or_not_at_all_is_a_failure() -> None:
    answers: dict[str, tuple[int, Any]] = {
        "/api/v1/models/digits": (500, {}),
        "/api/v1/alerts": (200, {"alerts": []}),
    }
    with (
        api(answers) as address,
        demo.open_snapshot_reader(address) as read,
        pytest.raises(ChildFailedError, match="500"),
    ):
        read("calm")
    with demo.open_snapshot_reader(address) as read, pytest.raises(ChildFailedError, match="does not answer"):
        read("calm")


def test_lines_show_each_act_and_alert_once_and_a_line_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = [100.0]
    lines = demo.LinePrinter(clock=lambda: now_s[0])
    _, calm, shift, _ = story.plan_acts(8.0)
    quiet = story.ApiSnapshot(at_ns=0, act="calm", model=model_document())
    alarmed = replace(quiet, act="shift", alerts=(alert_document("data_drift"),))
    for moment, act in ((quiet, calm), (quiet, calm), (quiet, calm), (alarmed, shift), (alarmed, shift)):
        lines(moment, act)
        now_s[0] += 0.5
    shown = [line[:18].rstrip() for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        f"--- {calm.headline}"[:18].rstrip(),
        "  0.0 s  calm",
        "  1.0 s  calm",
        f"--- {shift.headline}"[:18].rstrip(),
        "digits data_drift",
        "  1.5 s  shift",
    ]


PROGRAM = """
import signal, sys
from otel_mlmon.cli import demo, main

# A shell starts what runs in the background with SIGINT ignored, and so are its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

def perform(folder, seconds_per_act, *, is_shown, stay):
    print(folder, flush=True)
    sys.stdin.read()

demo.perform_demo = perform
sys.exit(main(["demo"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_demo_in_order(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (INTERRUPTED, "")
    assert not folder.exists()


def test_a_processor_that_cannot_start_is_a_failure_with_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no room' >&2\nexit 4\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert main(["demo", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "passed": False,
        "problems": ["The processor ended with exit code 4."],
        "expected_alerts": [],
    }
    assert shown.err == "--- standard error of the processor:\nno room\n\n"
    assert os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") is None
