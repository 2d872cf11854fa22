"""A receiver for the processor's webhook that starts a job when a model drifts: a new training, a ticket, a notebook.

`MLMON_WEBHOOK_SECRET=… python webhook.py 8000 python train.py` runs `python train.py` with the alert as JSON on its
standard input: for a new alert of `data_drift`, `prediction_drift` or `confidence`, one job a model at a time, and none
within `MLMON_COOL_DOWN_S` (a day) of the last. Answers 202 where it starts one, 200 where it does not and says why, 401
to whoever does not know the secret.
"""

import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RULES = ("data_drift", "prediction_drift", "confidence")
MAX_BYTES = 2**20
MAX_AGE_S = 300.0
SECRET = os.environ.get("MLMON_WEBHOOK_SECRET", "").encode()
COOL_DOWN_S = float(os.environ.get("MLMON_COOL_DOWN_S", "86400"))


class Jobs:
    """Starts a job, unless one of the model runs or was started a short while ago."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._started_s: dict[str, float] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, alert: dict[str, Any]) -> str:
        """Starts a job for an alert; returns why not, or an empty text."""
        model = str(alert["model_id"])
        if alert["is_test"]:
            return "this is a test"
        if alert["state"] != "firing" or alert["state"] == alert["previous"]:
            return "it is no new alert"
        if alert["rule"] not in RULES:
            return f"{alert['rule']} is nothing that training mends"
        with self._lock:
            if model in self._running and self._running[model].poll() is None:
                return "a job of this model runs"
            if time.monotonic() - self._started_s.get(model, float("-inf")) < COOL_DOWN_S:
                return "a job of this model was started a short while ago"
            job = subprocess.Popen(self._command, stdin=subprocess.PIPE)
            self._running[model], self._started_s[model] = job, time.monotonic()
        threading.Thread(target=job.communicate, args=(json.dumps(alert).encode(),), daemon=True).start()
        return ""


class Receiver(BaseHTTPRequestHandler):
    """Answers alerts."""

    def do_POST(self) -> None:
        """One alert."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(min(length, MAX_BYTES))
        if length > MAX_BYTES or not self._is_authentic(body):
            self._answer(413 if length > MAX_BYTES else 401, "this is not from the processor")
            return
        try:
            reason = JOBS.start(json.loads(body))
        except (ValueError, KeyError, TypeError):
            self._answer(400, "this is no alert")
            return
        except OSError as error:
            self._answer(503, f"the job cannot be started: {error}")
            return
        self._answer(200 if reason else 202, reason or "a job was started")

    def _is_authentic(self, body: bytes) -> bool:
        """Whether whoever sent it knows the secret, and sent it just now."""
        if not SECRET:
            return True
        sent_s = self.headers.get("X-Mlmon-Timestamp", "")
        expected = "v1=" + hmac.new(SECRET, sent_s.encode() + b"." + body, hashlib.sha256).hexdigest()
        is_equal = hmac.compare_digest(expected.encode(), self.headers.get("X-Mlmon-Signature", "").encode())
        return is_equal and abs(time.time() - float(sent_s)) <= MAX_AGE_S

    def _answer(self, status: int, text: str) -> None:
        print(f"{status}: {text}", flush=True)
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what is answered is printed."""


JOBS = Jobs(sys.argv[2:] or [sys.executable, "train.py"])
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
print(f"Listening on port {server.server_port}.", flush=True)
server.serve_forever()
