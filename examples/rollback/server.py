"""A model server that serves the version that the pointer names: `python server.py models 8000`.

It looks at the pointer at each request, and changes the version between two of them. A version that cannot be loaded is
not served: the one before goes on. POST /predict takes `{"rows": [[…], …]}` and answers `{"version", "labels"}`.
"""

import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
import pointer

import otel_mlmon

otel_mlmon.instrument()
FOLDER = Path(sys.argv[1])
LABELS = np.array(["low", "middle", "high"])


class Versions:
    """The session of the version in service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = ""
        self.version = ""
        self._session: onnxruntime.InferenceSession | None = None

    def session(self) -> tuple[str, onnxruntime.InferenceSession]:
        """Returns the version that the pointer names, and its session."""
        with self._lock:
            wanted = str(pointer.read(FOLDER / "current.json").get("version", "1"))
            if wanted != self._wanted:
                self._wanted = wanted
                try:
                    self._session = onnxruntime.InferenceSession((FOLDER / f"{wanted}.onnx").read_bytes())
                    self.version = wanted
                    print(f"Version {wanted} is served.", flush=True)
                except Exception as error:  # noqa: BLE001 (whatever is wrong with it, the one before is served)
                    print(f"Version {wanted} cannot be loaded: {error}", flush=True)
            if self._session is None:
                raise RuntimeError("there is no version that can be served")
            return self.version, self._session


VERSIONS = Versions()


class Handler(BaseHTTPRequestHandler):
    """Answers predictions."""

    def do_POST(self) -> None:
        """One batch of rows."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            rows = np.array(json.loads(body)["rows"], dtype=np.float32)
            version, session = VERSIONS.session()
            (probabilities,) = session.run(None, {"input": rows})
            status, answer = 200, {"version": version, "labels": LABELS[probabilities.argmax(axis=1)].tolist()}
        except Exception as error:  # noqa: BLE001 (whatever is wrong with a request, the server goes on)
            status, answer = 500, {"error": str(error)}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing: the processor watches."""


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(f"Listening on port {server.server_port}.", flush=True)
server.serve_forever()
