"""A subscription on the real servers: approved, shaken hands with, notified of a study and of its report."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from consumers.fhir.subscription import CONTENT, REPORT_ISSUED, STUDY_COMPLETE
from tests.archive import Archive, wait_until
from tests.unit.consumers.archive import part10
from tests.unit.consumers.delivery.test_subscriptions import told

pytestmark = pytest.mark.connected
Came = list[tuple[str, dict[str, Any]]]


@contextmanager
def receiver() -> Iterator[tuple[str, Came]]:
    """(its URL, what came: path and bundle)."""
    came: Came = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.path, json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_subscriber_learns_of_a_study_and_its_report(archive: Archive) -> None:
    uid = f"2.25.{time.time_ns()}"

    def post(address: str, body: Any, kind: str = "application/fhir+json") -> httpx.Response:
        headers = {"Content-Type": kind}
        return httpx.post(archive.base + address, content=json.dumps(body), headers=headers, timeout=60)

    with receiver() as (base, came):
        payload = {"extension": [{"url": CONTENT, "valueCode": "id-only"}]}
        made: dict[str, str] = {}
        for topic, path in ((REPORT_ISSUED, "/reports"), (STUDY_COMPLETE, "/studies")):
            channel: dict[str, Any] = {"type": "rest-hook", "endpoint": base + path, "payload": "application/fhir+json"}
            wanted: dict[str, Any] = {
                "resourceType": "Subscription",
                "status": "requested",
                "reason": "test",
                "criteria": topic,
            }
            wanted |= {"channel": channel | {"_payload": payload, "header": ["Authorization: Bearer of-the-hook"]}}
            if not made:
                assert post("/fhir/Subscription", wanted).json()["resourceType"] == "OperationOutcome"
                assert post("/subscription-endpoints", {"prefix": base}, "application/json").status_code == 201
            answer = post("/fhir/Subscription", wanted)
            assert answer.status_code == 201, answer.text
            made[path] = answer.json()["id"]

        def active() -> bool:
            return all(archive.json(f"/fhir/Subscription/{i}")["status"] == "active" for i in made.values())

        wait_until(active, 30, "both have answered the handshake")
        assert archive.stow([part10(f"{uid}.1", study=uid, series=f"{uid}.2")]).status_code == 200
        wait_until(lambda: archive.instance_count(uid) == 1, 60, "the study is queryable")
        report = {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "code": {"text": "CT"},
            "conclusion": "سليم",
            "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}],
        }
        id = post("/reports", report).json()["report_id"]

        def focuses() -> dict[tuple[str, str], str]:
            """(path, what it is about) → its number. Other tests' studies may be among them."""
            events = [(path, told(b)) for path, b in came if told(b)["type"] == "event-notification"]
            return {(path, t["focus"].rpartition("/fhir/")[2]): t["event-number"] for path, t in events}

        expected = {("/reports", f"DiagnosticReport/{id}"), ("/studies", f"ImagingStudy/{uid}")}
        wait_until(lambda: expected <= set(focuses()), 60, "both were told")
        stands = told(archive.json(f"/fhir/Subscription/{made['/reports']}/$status"))
        assert int(stands["events-since-subscription-start"]) >= int(focuses()["/reports", f"DiagnosticReport/{id}"])
        for subscription in made.values():
            assert httpx.delete(f"{archive.base}/fhir/Subscription/{subscription}", timeout=60).status_code == 204
        prefix = httpx.QueryParams({"prefix": base})
        assert httpx.delete(f"{archive.base}/subscription-endpoints?{prefix}", timeout=60).status_code == 204
