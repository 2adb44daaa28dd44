"""Health and metrics of a process, by HTTP: `/health/live`, `/health/ready`, `/metrics`.

A process with an HTTP door of its own answers these there, with `readiness()`; every other runs `serve()`.
The body of `/health/ready` is what `sijil status` reads:
`{"ready": true, "checks": {"kafka": true}, "spool_backlog": 0, "chain_backlog": 0, "lag": 0}`, the figures as each
process has them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Checks = Callable[[], Mapping[str, bool]]
Figures = Callable[[], Mapping[str, int | float]]


def readiness(checks: Mapping[str, bool], figures: Mapping[str, int | float]) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body): 200 if every check holds, else 503."""
    ready = all(checks.values())
    return (200 if ready else 503), {"ready": ready, "checks": dict(checks), **figures}


class HealthServer:
    """The health and metrics port of one process, answered on daemon threads until `close()`."""

    def __init__(
        self, host: str, port: int, *, ready: Checks, figures: Figures = dict, live: Callable[[], bool] = lambda: True
    ) -> None:
        """Binds at once: OSError if the port is taken. Port 0 takes a free one, see `port`."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                match self.path.partition("?")[0]:
                    case "/health/live":
                        alive = live()
                        self._json(200 if alive else 503, {"live": alive})
                    case "/health/ready":
                        self._json(*readiness(ready(), figures()))
                    case "/metrics":
                        self._send(200, CONTENT_TYPE_LATEST, generate_latest())
                    case _:
                        self._json(404, {"status": 404, "title": "Not Found"})

            def _json(self, status: int, body: Mapping[str, Any]) -> None:
                self._send(status, "application/json", json.dumps(body).encode())

            def _send(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: probes come every second."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
