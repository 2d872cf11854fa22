from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_mlmon
from otel_mlmon import semconv
from otel_mlmon.instrumentation.host_hooks import HostHooks, MethodHook
from otel_mlmon.instrumentation.lifecycle import is_instrumented
from tests.support import models
from tests.support.processes import run_python, until

SCORES = {"input": np.zeros((1, 4), np.float32)}


class Recorder:
    """What the hooks call, written down."""

    timeout_s = 60.0

    def __init__(self) -> None:
        self.calls: list[object] = []

    def flush_all(self) -> None:
        self.calls.append("all")

    def flush_to_provider(self, provider: object) -> None:
        self.calls.append(provider)


class Base:
    def end(self, word: str = "end") -> str:
        return word

    @classmethod
    def end_class(cls, word: str) -> str:
        return f"{cls.__name__} {word}"


def shout(original: Callable[..., str]) -> Callable[..., str]:
    return lambda *arguments, **keywords: original(*arguments, **keywords).upper()


@pytest.mark.parametrize(("name", "plain"), [("end", "a"), ("end_class", "Base a")])
def test_a_method_is_replaced_in_place_and_restored(name: str, plain: str) -> None:
    original = Base.__dict__[name]
    hook = MethodHook(Base, name, shout)
    assert (getattr(Base(), name)("a"), getattr(Base, name).__name__) == (plain.upper(), name)
    hook.restore_method()
    assert Base.__dict__[name] is original
    assert getattr(Base(), name)("a") == plain


def test_below_another_librarys_patch_the_replacement_calls_the_original_only(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Base.end
    hook = MethodHook(Base, "end", shout)
    ours = Base.end
    monkeypatch.setattr(Base, "end", lambda self, word: f"<{ours(self, word)}>")
    assert Base().end("a") == "<A>"
    hook.restore_method()
    assert Base().end("a") == "<a>"
    monkeypatch.undo()
    Base.end = original  # type: ignore[method-assign]


def hooked_methods() -> dict[str, object]:
    from multiprocessing.pool import Pool

    import celery.signals
    import uvicorn.server

    owners: list[tuple[type, str]] = [(uvicorn.server.Server, "shutdown"), (Pool, "_terminate_pool")]
    owners += [(owner, name) for owner in (TracerProvider, MeterProvider, LoggerProvider) for name in PROVIDER_METHODS]
    methods: dict[str, object] = {f"{owner.__name__}.{name}": owner.__dict__[name] for owner, name in owners}
    return {**methods, "celery": len(celery.signals.worker_process_shutdown.receivers)}


PROVIDER_METHODS = ("shutdown", "force_flush")


def test_uninstrument_restores_everything() -> None:
    pytest.importorskip("celery")
    before = hooked_methods()
    handle = otel_mlmon.instrument(meter_provider=MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))
    during = hooked_methods()
    handle.uninstrument()
    assert [name for name in before if before[name] == during[name]] == []
    assert hooked_methods() == before


def test_a_module_that_is_loaded_later_is_hooked_then(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn.server as module

    original = module.Server.__dict__["shutdown"]
    monkeypatch.delitem(sys.modules, "uvicorn.server")
    hooks = HostHooks(Recorder())
    try:
        hooks.hook_loaded_modules()
        assert module.Server.__dict__["shutdown"] is original
        monkeypatch.setitem(sys.modules, "uvicorn.server", module)
        hooks.hook_loaded_modules()
        assert module.Server.__dict__["shutdown"] is not original
    finally:
        hooks.remove_hooks()
    assert module.Server.__dict__["shutdown"] is original


@pytest.mark.parametrize("is_failing", [False, True])
def test_uvicorns_shutdown_flushes_after_it_and_ends_as_it_did(
    monkeypatch: pytest.MonkeyPatch, *, is_failing: bool
) -> None:
    import uvicorn.server as module

    recorder = Recorder()

    async def shutdown(_: Any, sockets: object = None) -> str:
        recorder.calls.append(sockets)
        if is_failing:
            raise RuntimeError("lifespan")
        return "ended"

    monkeypatch.setattr(module.Server, "shutdown", shutdown)
    hooks = HostHooks(recorder)
    hooks.hook_loaded_modules()
    try:
        server: Any = object.__new__(module.Server)
        if is_failing:
            with pytest.raises(RuntimeError, match="lifespan"):
                asyncio.run(server.shutdown(sockets="sockets"))
        else:
            assert asyncio.run(server.shutdown(sockets="sockets")) == "ended"
    finally:
        hooks.remove_hooks()
    assert recorder.calls == ["sockets", "all"]


@contextmanager
def instrumented(**arguments: Any) -> Iterator[otel_mlmon.Handle]:
    handle = otel_mlmon.instrument(flush_interval_s=60.0, sentry="off", **arguments)
    try:
        yield handle
    finally:
        handle.shutdown(5)


def started_session(handle: otel_mlmon.Handle) -> ort.InferenceSession:
    """A session of one call, after which the worker waits for a minute."""
    session = ort.InferenceSession(models.softmax())
    session.run(None, SCORES)
    until(lambda: handle.status().recorded_calls == 1)
    return session


@pytest.mark.parametrize("method", PROVIDER_METHODS)
def test_what_waits_is_written_before_a_provider_is_flushed_or_ended(method: str) -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer, meter = TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    tracer.add_span_processor(BatchSpanProcessor(exporter))
    logger = LoggerProvider(shutdown_on_exit=False)
    with instrumented(tracer_provider=tracer, meter_provider=meter, logger_provider=logger) as handle:
        session = started_session(handle)
        for _ in range(4):
            session.run(None, SCORES)
        getattr(tracer, method)()
        assert len([span for span in exporter.get_finished_spans() if span.name.startswith("predict")]) == 5
        assert handle.status().recorded_calls == 5
        assert handle.status().waiting_calls == 0
    meter.shutdown()
    tracer.shutdown()


def test_the_end_of_a_provider_of_somebody_else_is_none_of_ours() -> None:
    mine, other = (MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False) for _ in range(2))
    others = {
        "tracer_provider": TracerProvider(shutdown_on_exit=False),
        "logger_provider": LoggerProvider(shutdown_on_exit=False),
    }
    with instrumented(meter_provider=mine, **others) as handle:
        started_session(handle).run(None, SCORES)
        other.shutdown()
        assert handle.status().waiting_calls == 1
    mine.shutdown()


def serve(path: str) -> int:
    """A task: one prediction, counted by an exporter that writes into a file of the worker's."""
    if not is_instrumented():
        out = (Path(path) / str(os.getpid())).open("w", encoding="utf-8")
        reader = PeriodicExportingMetricReader(ConsoleMetricExporter(out=out), export_interval_millis=3_600_000)
        otel_mlmon.instrument(
            meter_provider=MeterProvider([reader], shutdown_on_exit=False),
            tracer_provider=TracerProvider(shutdown_on_exit=False),
            logger_provider=LoggerProvider(shutdown_on_exit=False),
            sentry="off",
        )
    otel_mlmon.observe("pooled", label="a", confidence=0.9)
    return os.getpid()


def serve_deaf(path: str) -> int:
    """The same in a worker that handles the signal itself."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    return serve(path)


def count_exported(path: Path) -> int:
    """Sums the calls that one worker exported, over its last document."""
    decoder, text, count = json.JSONDecoder(), path.read_text(), 0
    while text.strip():
        document, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        metrics = [
            metric
            for part in document["resource_metrics"]
            for scope in part["scope_metrics"]
            for metric in scope["metrics"]
        ]
        counts = [
            point["value"]
            for metric in metrics
            if metric["name"] == semconv.PREDICTIONS.name
            for point in metric["data"]["data_points"]
        ]
        count = sum(counts) or count
    return count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize(
    ("method", "task", "exit_code"),
    [("fork", serve, -signal.SIGTERM), ("spawn", serve, -signal.SIGTERM), ("fork", serve_deaf, 7)],
)
def test_idle_workers_of_a_pool_export_and_end_as_they_would_without(
    method: str, task: Callable[[str], int], exit_code: int, tmp_path: Path
) -> None:
    hooks = HostHooks(Recorder())
    hooks.hook_loaded_modules()
    try:
        with multiprocessing.get_context(method).Pool(2) as pool:
            workers = [*pool._pool]  # type: ignore[attr-defined]
            pids = set(pool.map(task, [str(tmp_path)] * 8, chunksize=1))
        pool.join()
    finally:
        hooks.remove_hooks()
    assert [worker.exitcode for worker in workers if worker.pid in pids] == [exit_code] * len(pids)
    assert {worker.exitcode for worker in workers if worker.pid not in pids} <= {-signal.SIGTERM}
    assert sum(count_exported(path) for path in tmp_path.iterdir()) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_pool_that_was_closed_ends_in_order(tmp_path: Path) -> None:
    hooks = HostHooks(Recorder())
    hooks.hook_loaded_modules()
    try:
        pool = multiprocessing.get_context("fork").Pool(2)
        workers = [*pool._pool]  # type: ignore[attr-defined]
        pool.map(serve, [str(tmp_path)] * 8, chunksize=1)
        pool.close()
        pool.terminate()
    finally:
        hooks.remove_hooks()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(count_exported(path) for path in tmp_path.iterdir()) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_pool_at_work_is_terminated_at_once() -> None:
    context = multiprocessing.get_context("fork")
    hooks = HostHooks(Recorder())
    hooks.hook_loaded_modules()
    try:
        with context.Pool(1) as pool:
            workers = [*pool._pool]  # type: ignore[attr-defined]
            pool.apply_async(time.sleep, (60,))
            began_s = time.monotonic()
    finally:
        hooks.remove_hooks()
    assert [worker.exitcode for worker in workers] == [-signal.SIGTERM]
    assert time.monotonic() - began_s < 30


HANDLERS = """
import atexit, signal, sys
import numpy as np, onnxruntime as ort, otel_mlmon
from tests.support import models
names = [name for name in ("SIGINT", "SIGTERM", "SIGABRT", "SIGHUP") if hasattr(signal, name)]
before = [signal.getsignal(getattr(signal, name)) for name in names], sys.excepthook
otel_mlmon.instrument()
ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
assert ([signal.getsignal(getattr(signal, name)) for name in names], sys.excepthook) == before
ENDING
"""


@pytest.mark.parametrize(
    ("ending", "code", "message"),
    [("sys.exit(3)", 3, ""), ("raise KeyError('theirs')", 1, "KeyError: 'theirs'"), ("", 0, "")],
)
def test_exit_codes_tracebacks_and_handlers_stay(
    ending: str, code: int, message: str, pytestconfig: pytest.Config
) -> None:
    off = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    program = HANDLERS.replace("ENDING", ending)
    root = pytestconfig.rootpath
    done = run_python(["-c", program], cwd=root, timeout_s=60, PYTHONPATH=str(root), **off)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.strip().endswith(message)
    assert "otel_mlmon" not in done.stderr
