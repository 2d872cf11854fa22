"""The two long ways stay short: how many files a reader passes on each."""

from __future__ import annotations

from tests.tools.paths import trace_call, trace_point

MAX_CALL_FILES = 22
MAX_POINT_FILES = 56


def test_a_call_passes_few_files_until_its_signals_are_flushed() -> None:
    # Sentry's part is passed only where an earlier test of this process has set Sentry up.
    files = [file for file in trace_call().files() if not file.startswith("instrumentation/sentry/")]
    assert len(files) <= MAX_CALL_FILES, "\n".join(files)
    ends = {"instrumentation/runtime/onnxruntime/patches.py", "instrumentation/export/metrics.py"}
    assert ends <= set(files), "the way was not run from end to end"


def test_a_point_passes_few_files_until_its_alert() -> None:
    files = trace_point().files()
    assert len(files) <= MAX_POINT_FILES, "\n".join(files)
    ends = {"processor/receive/decode.py", "processor/alert/lifecycle.py"}
    assert ends <= set(files), "the way was not run from end to end"
