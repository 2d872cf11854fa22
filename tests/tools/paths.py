"""Counts what a reader has to pass on the two long ways, and the lines of code: `make paths`.

The two ways are run for real, with a profiler that notes every function of the package that is entered:

- a call: `session.run` of a classifier until its span, event and metrics are flushed;
- a point: the request that brings an alert, from its decoding until the alert is in the hands of a notifier; without
  the pages, which are published beside it.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

PACKAGE: Final = Path(__file__).resolve().parents[2] / "otel_mlmon"


class Trace:
    """Notes the functions of the package that this thread enters while it is active.

    Flushing does all on the caller's thread; what the worker's does at the same time differs from run to run.
    """

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()
        self._publishing: FrameType | None = None
        """The frame in which pages are published, while it runs."""

    def __enter__(self) -> Trace:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code, caller = frame.f_code, frame.f_back
        if event == "call" and code.co_name == "_publish_models":
            self._publishing = frame
        if self._publishing is not None:
            if event == "return" and frame is self._publishing:
                self._publishing = None
            return
        is_test = caller is not None and caller.f_code.co_filename == str(
            PACKAGE / "testing" / "simulated_processor.py"
        )
        if is_test and not code.co_filename.startswith(str(PACKAGE / "processor")):
            return  # what builds the request is not on its way
        if event == "call" and code.co_filename.startswith(str(PACKAGE)) and code.co_name != "<module>":
            self.functions.add((code.co_filename, code.co_qualname if sys.version_info >= (3, 11) else code.co_name))

    def files(self) -> list[str]:
        """The files that hold the functions, sorted, `testing` left out."""
        names = {str(Path(file).relative_to(PACKAGE)) for file, _ in self.functions}
        return sorted(name for name in names if not name.startswith("testing"))

    def count(self) -> int:
        """How many functions, `testing` and functions without a name left out."""
        return sum("<" not in name.rsplit(".", 1)[-1] and "/testing" not in file for file, name in self.functions)


def trace_call() -> Trace:
    """From `session.run` to flushed signals; sessions and exporters are set up before.

    Flushed by the pipeline, as the worker thread does by itself, not through the handle that a test has.
    """
    import numpy as np
    import onnxruntime

    from otel_mlmon.testing import capture
    from tests.support import models

    session = onnxruntime.InferenceSession(models.classifier())
    feed = {"input": np.ones((1, 10), dtype=np.float32)}
    with capture() as captured:
        for _ in range(20):
            session.run(None, feed)
        captured.flush()
        captured.metrics()
        running = captured.handle._running
        assert running is not None
        flush = running.pipeline.flush
        trace = Trace()
        with trace:
            for _ in range(20):
                session.run(None, feed)
            flush(timeout_s=10.0)
            captured._reader.get_metrics_data()
    return trace


class _Inbox(list[Any]):
    """Alerts as a notifier has them: the way of a point ends here."""

    def append(self, alert: Any) -> None:
        sys.setprofile(None)
        super().append(alert)


def trace_point() -> Trace:
    """From the request that brings an alert to a notifier that has it; the default configuration but for `learn`."""
    from otel_mlmon.testing import SimulatedProcessor

    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 1000}}}}) as processor:
        processor.alerts = _Inbox()
        for _ in range(60):
            processor.send_counts("fraud", labels={"ok": 95, "fraud": 5})
            processor.advance(10)
        for _ in range(40):
            with Trace() as trace:
                processor.send_counts("fraud", labels={"ok": 60, "fraud": 40})
                processor.advance(10)
            if processor.alerts:
                return trace
    raise AssertionError("no alert came")


def code_lines(path: Path) -> int:
    """The lines of a module that hold code: no blank line, no comment, no docstring."""
    source = path.read_text(encoding="utf-8")
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def main() -> int:
    """Prints the counts, and with `--files` the files of each way."""
    ways: list[tuple[str, Callable[[], Trace]]] = [
        ("a call, from run to flushed signals", trace_call),
        ("a point, from its request to an alert", trace_point),
    ]
    for title, trace_of in ways:
        trace = trace_of()
        print(f"{title}: {len(trace.files())} files, {trace.count()} functions")
        if "--files" in sys.argv:
            print("  " + "\n  ".join(trace.files()))
    modules = sorted(PACKAGE.rglob("*.py"))
    lines = {path: code_lines(path) for path in modules}
    longest = max(modules, key=lambda path: len(path.read_text(encoding="utf-8").splitlines()))
    print(f"code: {sum(lines.values())} lines in {len(modules)} modules, without comments and docstrings")
    print(
        f"longest module: {longest.relative_to(PACKAGE)}, {len(longest.read_text('utf-8').splitlines())} lines in all"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
