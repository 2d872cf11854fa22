"""A program of many processes: `python -m tests.support.forking fork|spawn|forkserver|os CHILDREN CALLS`."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any


def work(calls: int) -> None:
    """Runs calls of a child process; importing instruments it, unless the parent did."""
    from tests.support.serving import predict

    for _ in range(calls):
        predict()


def by_fork(children: int, calls: int) -> None:
    """Forks by plain `os.fork` while calls of the parent wait in the queue; the children end regularly."""
    from tests.support.serving import predict

    predict()
    for _ in range(children):
        if os.fork() == 0:
            work(calls)
            sys.exit(0)
    if any(os.wait()[1] for _ in range(children)):
        sys.exit("a child failed")


def main() -> None:
    how, children, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if how == "os":
        by_fork(children, calls)
        return
    if how == "fork":
        import tests.support.serving  # noqa: F401 - instrumented before the fork, as a server with preloading does
    context: Any = multiprocessing.get_context(how)
    running = [context.Process(target=work, args=(calls,)) for _ in range(children)]
    for process in running:
        process.start()
    for process in running:
        process.join()


if __name__ == "__main__":
    main()
