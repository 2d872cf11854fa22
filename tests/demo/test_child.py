"""Children are heard, told, and always ended."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from otel_mlmon.demo.child import ChildFailedError, ChildProcess, start_child_process

ECHO = """
import json, sys
print("not json")
print(json.dumps(["no", "object"]))
print(json.dumps({"event": "ready", "web": "127.0.0.1:1"}), flush=True)
heard = [line.strip() for line in sys.stdin]
print(json.dumps({"event": "done", "heard": heard}), flush=True)
"""
STUBBORN = """
import json, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps({"event": "ready"}), flush=True)
while True: time.sleep(60)
"""


def run_child(tmp_path: Path, program: str) -> AbstractContextManager[ChildProcess]:
    return start_child_process("child", [sys.executable, "-c", program], folder=tmp_path, environ=dict(os.environ))


def test_a_child_says_hears_and_ends(tmp_path: Path) -> None:
    with run_child(tmp_path, ECHO) as child:
        assert child.wait_for_event("ready", timeout_s=10) == {"event": "ready", "web": "127.0.0.1:1"}
        child.check_running()
        child.send_input_line("calm")
        child.send_input_line("shift")
        child.close_input()
        assert child.wait_for_event("done", timeout_s=10) == {"event": "done", "heard": ["calm", "shift"]}
    assert child.process.returncode is not None


def test_a_child_that_ends_early_is_told_of_with_its_errors(tmp_path: Path) -> None:
    with (
        pytest.raises(ChildFailedError, match=r"The child ended with exit code 3\."),
        run_child(tmp_path, "import sys; sys.stderr.write('no port'); sys.exit(3)") as child,
    ):
        child.wait_for_event("ready", timeout_s=10)
    assert child.read_output("stderr") == "no port"


def test_what_is_said_to_a_child_that_has_ended_is_lost(tmp_path: Path) -> None:
    with run_child(tmp_path, "") as child:
        child.process.wait(10)
        child.send_input_line("nobody hears this")
        with pytest.raises(ChildFailedError, match=r"The child ended with exit code 0\."):
            child.check_running()


def test_what_a_child_said_before_it_ended_counts(tmp_path: Path) -> None:
    with run_child(tmp_path, 'print(\'{"event": "ready"}\')') as child:
        child.process.wait(10)
        assert child.wait_for_event("ready", timeout_s=10) == {"event": "ready"}


def test_a_silent_child_is_not_waited_for_longer_than_said(tmp_path: Path) -> None:
    with (
        pytest.raises(ChildFailedError, match=r"The child did not print the event 'ready' within 0\.1 s\."),
        run_child(tmp_path, "import sys; sys.stdin.read()") as child,
    ):
        child.wait_for_event("ready", timeout_s=0.1)
    assert child.process.returncode is not None


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_mlmon.demo.child.STOP_S", 0.1)
    with run_child(tmp_path, STUBBORN) as child:
        child.wait_for_event("ready", timeout_s=10)
    assert child.process.returncode == -9


def test_a_child_dies_with_the_block_that_failed(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), run_child(tmp_path, "import sys; sys.stdin.read()") as child:
        raise KeyboardInterrupt
    assert child.process.poll() is not None


def test_a_child_has_a_session_of_its_own(tmp_path: Path) -> None:
    with run_child(tmp_path, "import sys; sys.stdin.read()") as child:
        assert os.getsid(child.process.pid) == child.process.pid != os.getsid(0)


def test_a_program_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    absent = start_child_process("child", [str(tmp_path / "none")], folder=tmp_path, environ={})
    with pytest.raises(FileNotFoundError):
        absent.__enter__()
