"""A receiver for the processor's webhook: prints each alert's text. Ends after the first one.

In mlmon.yaml:  alerts: {notify: [{webhook: {url: "http://127.0.0.1:8000/"}}]}
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to an alert, after printing it."""

    def do_POST(self) -> None:
        """One alert, as JSON."""
        alert = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(alert["text"], flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the alert is what is printed."""


server = HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Receiver)
print(f"Listening on port {server.server_port}.", flush=True)
server.handle_request()
server.server_close()
