"""A light FHIR server over real HTTP, where to start HAPI would cost more than the test: does as `Record`."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from consumers.delivery.ehr.client import Unsuitable
from consumers.fhir.codes import MEDIA_TYPE
from tests.unit.consumers.delivery.test_ehr import Record


class Double:
    """A record with a port of its own; nobody listens there until `open`."""

    def __init__(self, *people: str) -> None:
        self.record = Record(*people)
        self.taken: list[str] = []
        """The idempotency keys of the transactions that were done."""
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{self._port}/fhir"

    def open(self) -> None:
        """It can be reached from now on."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(*double.transact(told, str(self.headers["Idempotency-Key"])))

            def do_GET(self) -> None:
                asked = parse_qs(unquote(urlsplit(self.path).query))
                self.answer(200, double.count(asked["identifier"][0]))

            def answer(self, status: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", MEDIA_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def transact(self, bundle: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        """(status, answer) of a transaction."""
        with self._lock:
            try:
                asyncio.run(self.record.transact(bundle, key))
            except Unsuitable as unsuitable:
                return unsuitable.status, {"resourceType": "OperationOutcome"}
            self.taken.append(key)
        return 200, {"resourceType": "Bundle", "type": "transaction-response"}

    def count(self, identifier: str) -> dict[str, Any]:
        """A searchset of the people who have it."""
        with self._lock:
            found = asyncio.run(self.record.count(identifier))
        entries = [{"resource": {"resourceType": "Patient"}, "search": {"mode": "match"}}] * found
        return {"resourceType": "Bundle", "type": "searchset", "entry": entries}

    def close(self) -> None:
        """Out of reach again."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
