"""A job with Sentry ends while Sentry's address takes connections and never answers.

Sentry's SDK alone waits its own two seconds where something is to be sent. The documentation says that the end of the
process waits at most two seconds for us. So the program with `instrument()` may end at most about two seconds (2.5
here) later than the same program without it: a job that is stopped during an outage must not hang until it is killed.

Times are from the last line of the program to the end of its process; the smaller of two runs each.
"""

import socket
import subprocess
import time

from tests.cases import support

ALLOWED_S = 2.5
PROGRAM = """
import sys, time
import numpy as np, onnxruntime, sentry_sdk, support
sentry_sdk.init(sys.argv[1], traces_sample_rate=1.0)
if sys.argv[2] == "with":
    import otel_mlmon
    otel_mlmon.instrument()
session = onnxruntime.InferenceSession(support.identity_model({"p": ("float32", ["N", 3])}))
for _ in range(50):
    session.run(None, {"in_p": np.array([[0.7, 0.2, 0.1]], "f4")})
    time.sleep(0.03)
if sys.argv[3] == "error":
    sentry_sdk.capture_exception(ValueError("no stock"))
print(time.time(), flush=True)
"""


def seconds_to_end(dsn: str, how: str, what: str) -> float:
    environment = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("METRICS", "LOGS", "TRACES")}
    times = []
    for _ in range(2):
        try:
            done = support.run_program(PROGRAM, dsn, how, what, environment=environment, time_limit=25)
        except subprocess.TimeoutExpired:
            return 25.0
        times.append(time.time() - float(done.stdout.split()[-1]))
    return min(times)


def main() -> None:
    checks = support.Checks()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        dsn = f"http://public@127.0.0.1:{silent.getsockname()[1]}/1"
        for what in ("no error", "error"):
            alone, watched = (seconds_to_end(dsn, how, what) for how in ("without", "with"))
            came = f"{watched:.1f} s, {alone:.1f} s without"
            checks.that(f"{what} captured: at most {ALLOWED_S} s more than without", watched - alone <= ALLOWED_S, came)
    checks.finish()


if __name__ == "__main__":
    main()
