"""A program with `instrument()` in it does its work in children of multiprocessing's `forkserver`, from Python 3.14
the default on Linux.

The children import the program's main module, so each is instrumented by the same line. They end by `os._exit`,
without `atexit`. What they measured must arrive as it does from children by `fork` and `spawn`: 100 calls of 100, for
two plain processes and for a process pool.
"""

import multiprocessing

from tests.cases import support

PROGRAM = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np, onnxruntime, otel_mlmon, support
handle = otel_mlmon.instrument()
session = None

def work(calls):
    global session
    session = session or onnxruntime.InferenceSession(support.identity_model({"p": ("float32", ["N", 3])}))
    for _ in range(calls):
        session.run(None, {"in_p": np.array([[0.7, 0.2, 0.1]], "f4")})

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[2] == "pool":
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            list(pool.map(work, [25] * 4))
    else:
        children = [context.Process(target=work, args=(50,)) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
"""


def main() -> None:
    available = multiprocessing.get_all_start_methods()
    if "forkserver" not in available:
        support.skip("no forkserver on this system")
    checks = support.Checks()
    for method in available:
        for way in ("processes", "pool"):
            with support.OtlpSink() as sink:
                done = support.run_program(PROGRAM, method, way, environment=sink.environment)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                calls = sink.calls()
            checks.that(f"{method}, {way}: 100 calls arrive", calls == 100, calls)
    checks.finish()


if __name__ == "__main__":
    main()
