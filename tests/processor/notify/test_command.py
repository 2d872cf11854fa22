from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from otel_mlmon.processor.notify.command import MAX_OUTPUT, CommandNotifier
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from tests.support.alerts import FIRING
from tests.support.processes import until


def command(program: str, *arguments: str, timeout_s: float = 60.0) -> CommandNotifier:
    return CommandNotifier((sys.executable, "-c", program, *arguments), timeout_s=timeout_s)


def test_it_reads_the_alert_gets_its_arguments_unchanged_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    program = "import json, sys; alert = json.load(sys.stdin); print(json.dumps([alert['key'], *sys.argv[1:]]))"
    with caplog.at_level(logging.INFO, logger="otel_mlmon.alerts"):
        command(program, "$HOME; echo x", "*").notify(FIRING)
    assert caplog.messages == [f"{sys.executable}: {json.dumps([FIRING.key, '$HOME; echo x', '*'])}"]


def test_a_program_that_reads_nothing_has_succeeded_all_the_same() -> None:
    command("pass").notify(FIRING)


def test_the_exit_code_says_whether_to_try_again() -> None:
    with pytest.raises(TransientError, match="exit code 75"):
        command("raise SystemExit(75)").notify(FIRING)
    with pytest.raises(PermanentError, match="exit code 1"):
        command("raise SystemExit(1)").notify(FIRING)


def test_a_program_that_is_not_there_fails_for_good() -> None:
    with pytest.raises(PermanentError, match="cannot be run"):
        CommandNotifier(("./no-such-program",), timeout_s=1.0).notify(FIRING)


def test_one_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    program = 'sleep 600 & echo $! > "$0"; sleep 600'  # a shell has begun in milliseconds
    with pytest.raises(TransientError, match="no end within 2 s") as caught:
        CommandNotifier(("sh", "-c", program, str(tmp_path / "child")), timeout_s=2.0).notify(FIRING)
    assert caught.value.is_ambiguous
    stat = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    until(lambda: not stat.exists() or has_ended(stat))


def test_its_end_counts_though_what_it_started_holds_the_output_open(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; print('begun', flush=True); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "open(sys.argv[1], 'w').write(str(child.pid)); sys.exit(int(sys.argv[2]))"
    )
    children = []
    try:
        command(program, str(tmp_path / "child"), "0").notify(FIRING)
        children.append(int((tmp_path / "child").read_text()))
        with pytest.raises(PermanentError, match="exit code 3"):
            command(program, str(tmp_path / "child"), "3").notify(FIRING)
        children.append(int((tmp_path / "child").read_text()))
        assert not any(has_ended(Path(f"/proc/{child}/stat")) for child in children)  # they go on
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_of_a_flood_the_last_is_logged_and_no_more_is_held(caplog: pytest.LogCaptureFixture) -> None:
    program = (
        "import sys; line = b'x' * 1023 + b'\\n'\n"
        "for _ in range(65536): sys.stdout.buffer.write(line)\n"
        "sys.stdout.buffer.write(b'the end'); sys.stdout.flush()"
    )
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with caplog.at_level(logging.INFO, logger="otel_mlmon.alerts"):
        command(program).notify(FIRING)
    assert caplog.messages[0].endswith("xxx\nthe end")
    assert len(caplog.messages[0]) <= MAX_OUTPUT + len(sys.executable) + 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 32_768  # of 64 MiB


def has_ended(stat: Path) -> bool:
    """Whether a process is a zombie, or gone by now."""
    try:
        return stat.read_text().split(") ")[1][0] in "ZX"
    except OSError:
        return True
