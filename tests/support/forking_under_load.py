"""A program that forks while its threads run models: `python -m tests.support.forking_under_load CHILDREN CALLS`.

Each process prints one line: calls it made, calls recorded, calls dropped. A third argument is the time in seconds that
the worker thread takes longer for each module it imports, as on a machine under load.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from importlib.resources import files
from typing import Any, Final

import numpy as np
import onnxruntime as ort

import otel_mlmon
from otel_mlmon.instrumentation.lifecycle import Handle
from otel_mlmon.instrumentation.queue.call_queue import NAME

THREADS: Final = 3
FEED: Final = {"image": np.full((1, 1, 8, 8), 0.5, dtype=np.float32)}


def session() -> Any:
    """Creates a session without threads and memory pools of its own, which would not survive a fork."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return ort.InferenceSession(str(files("otel_mlmon.demo") / "digits.onnx"), options)


def tell(calls: int, handle: Handle) -> None:
    """Writes one line at once, so that no other process cuts it in two."""
    if not handle.flush(30):
        sys.stderr.write(f"process {os.getpid()} could not flush in 30 s: {handle.status()}\n")
    status = handle.status()
    os.write(1, f"{calls} {status.recorded_calls} {sum(status.dropped_calls.values())}\n".encode())


class SlowImports:
    """A finder of modules that finds none, and takes its time for it on the worker thread."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def find_spec(self, *_: object) -> None:
        """Waits on the worker thread, and leaves the module to the other finders."""
        if threading.current_thread().name == NAME:
            time.sleep(self._delay_s)


def main() -> None:
    """Forks again and again, each time while the threads run calls."""
    children, calls = int(sys.argv[1]), int(sys.argv[2])
    if len(sys.argv) > 3:
        sys.meta_path.insert(0, SlowImports(float(sys.argv[3])))
    handle = otel_mlmon.instrument(spans_per_second=0.0, events_per_second=0.0, flush_interval_s=0.01)
    idle, made, has_ended = session(), [0] * THREADS, threading.Event()

    def work(number: int) -> None:
        own = session()
        while not has_ended.is_set():
            own.run(None, FEED)
            made[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for _ in range(children):
        before = sum(made)
        while sum(made) < before + THREADS:
            os.sched_yield()
        if os.fork() == 0:
            for _ in range(calls):
                idle.run(None, FEED)
            tell(calls, handle)
            sys.exit(0)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(children)]
    has_ended.set()
    for thread in threads:
        thread.join()
    tell(sum(made), handle)
    sys.exit(f"children ended with {codes}" if any(codes) else 0)


if __name__ == "__main__":
    main()
