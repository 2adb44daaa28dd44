"""The health record out of reach, then killed; the delivery process killed between its steps: everything arrives, once.

The record is HAPI's own FHIR server, which refuses what is not valid and keeps what it has in a file. It counts: each
version of a resource that it has made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra import clock
from infra.kafka import KafkaLog
from infra.settings import Settings
from schemas.envelope import decode
from schemas.events import ReportDelivered, ReportDeliveryFailed
from tests.archive import Archive, wait_until
from tests.ehr.server import EhrServer
from tests.local_stack import LocalStack, free_offset, superuser
from tests.unit.consumers.archive import part10
from tests.unit.consumers.delivery.test_ehr import national_id

pytestmark = [pytest.mark.connected, pytest.mark.slow]

PEOPLE = [national_id(n) for n in (301, 302, 303)]
ROOT = f"1.2.826.0.9.6.{clock.now_ms()}"


class Delivery:
    """A delivery process of the test's own, beside that of the archive, which has no destination."""

    def __init__(self, whole: LocalStack, record: EhrServer) -> None:
        self.environment = {
            **whole.environment,
            "SIJIL_INSTANCE": "crash",
            "SIJIL_DELIVERY_HEALTH_PORT": str(8084 + free_offset()),
            "SIJIL_DELIVERY_SINCE": clock.rfc3339(clock.now()),
            "SIJIL_EHR_URL": record.base,
        }
        self.settings = Settings.load("delivery", self.environment)

    def start(self, fault: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "infra.cli", "delivery"]
        with (self.settings.home / "logs" / "delivery-crash.log").open("ab") as log:
            return subprocess.Popen(command, env={**self.environment, "SIJIL_FAULT": fault}, stdout=log, stderr=log)

    @contextmanager
    def running(self) -> Iterator[None]:
        process = self.start()
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(30) == 0, "SIGTERM ends it, cleanly and in time"

    def attempts(self, reports: set[str]) -> list[tuple[str, ReportDelivered | ReportDeliveryFailed]]:
        """(event id, event) of these reports, each record of the log once."""
        log = KafkaLog(superuser(self.settings))
        try:
            records = list(log.read("sijil.reports", {}, log.ends("sijil.reports")))
        finally:
            log.close()
        found = []
        for record in records:
            if record.key is None or record.key.decode() not in reports:
                continue
            envelope = decode("sijil.reports", record.key, record.headers, record.value)
            if isinstance(envelope.event, ReportDelivered | ReportDeliveryFailed):
                found.append((envelope.id, envelope.event))
        return found


def owed(archive: Archive, **wanted: str) -> list[dict[str, Any]]:
    """What the API says is owed."""
    rows = archive.json("/deliveries?destination=ehr")["deliveries"]
    return [r for r in rows if all(r.get(n) == v for n, v in wanted.items())]


def study_of(number: int) -> str:
    return f"{ROOT}.{number}"


def reported(archive: Archive, number: int, text: str, report: str = "", version: int = 0) -> str:
    """A report, or its next version; its id."""
    document = {
        "resourceType": "DiagnosticReport",
        "status": "amended" if version else "final",
        "code": {"text": "CT chest"},
        "imagingStudy": [{"reference": f"urn:oid:{study_of(number)}"}],
        "conclusion": text,
    }
    headers = {"Content-Type": "application/fhir+json"}
    url = archive.base + "/reports"
    if version:
        headers["If-Match"] = f'W/"{version}"'
        answer = httpx.put(f"{url}/{report}", content=json.dumps(document).encode(), headers=headers, timeout=60)
    else:
        answer = httpx.post(url, content=json.dumps(document).encode(), headers=headers, timeout=60)
    assert answer.status_code in (200, 201), answer.text
    assert answer.json()["status"] == document["status"]
    return str(answer.json()["report_id"])


def conclusions(record: EhrServer, person: str) -> list[str]:
    """Of the reports under somebody."""
    return [r["conclusion"] for r in record.of("DiagnosticReport", person)]


@pytest.mark.timeout(460)
def test_everything_arrives_once(whole: LocalStack, archive: Archive, tmp_path: Path) -> None:
    record = EhrServer(tmp_path / "ehr")
    delivery = Delivery(whole, record)
    for number, person in enumerate(PEOPLE):
        study = study_of(number)
        answer = archive.stow([part10(f"{study}.1.1", study=study, series=f"{study}.1", PatientID=person)])
        assert answer.status_code == 200, answer.text
    reports = [reported(archive, number, f"first {number}") for number in range(len(PEOPLE))]
    try:
        record.start()  # it takes its time: all the while it is out of reach
        with delivery.running():
            wait_until(lambda: len(owed(archive)) == 2 * len(PEOPLE), 60, "studies and reports are owed")
            wait_until(lambda: owed(archive, state="retrying", reason="not-reachable"), 60, "it was tried")
            record.ready()
            # It knows nobody of them: they wait in a list, for a person.
            wait_until(
                lambda: len(owed(archive, state="waiting", reason="patient-unknown")) == 2 * len(PEOPLE),
                90,
                "all wait",
            )
            for person in PEOPLE:
                record.register(person)
            assert archive.post_json("/deliveries/ehr", {}).status_code == 202
            wait_until(lambda: not owed(archive), 90, "all is delivered")
        assert [conclusions(record, p) for p in PEOPLE] == [[f"first {n}"] for n in range(len(PEOPLE))]
        # Killed after the call, and after the event: called again, with nothing changed by that.
        for version, fault in ((1, "delivery.called"), (2, "delivery.published")):
            reported(archive, 0, f"version {version + 1}", reports[0], version)
            assert delivery.start(fault).wait(60) == -9, f"it has to reach {fault}"
            assert conclusions(record, PEOPLE[0]) == [f"version {version + 1}"], "it was handed over"
            assert len(owed(archive)) == 1, "and is not known to be"
            with delivery.running():
                wait_until(lambda: not owed(archive), 60, "delivered again")
        (report,) = record.of("DiagnosticReport", PEOPLE[0])
        assert report["meta"]["versionId"] == "3", "three versions were written, each once"
        # The record is killed while it is told, and comes back with what it had.
        with delivery.running():
            for number in (1, 2):
                reported(archive, number, f"version 2 of {number}", reports[number], 1)
            record.kill()
            wait_until(lambda: owed(archive, state="retrying") or not owed(archive), 60, "it is noticed")
            record.start()
            record.ready()
            wait_until(lambda: not owed(archive), 90, "all is delivered")
        for number in (1, 2):
            (report,) = record.of("DiagnosticReport", PEOPLE[number])
            assert (report["conclusion"], report["meta"]["versionId"]) == (f"version 2 of {number}", "2")
            assert len(record.of("ImagingStudy", PEOPLE[number])) == 1
    finally:
        record.kill()
    # Each delivery that ended is an event, once; what failed before says why.
    attempts = delivery.attempts(set(reports))
    delivered = {(e.report_id, e.version, id) for id, e in attempts if isinstance(e, ReportDelivered)}
    assert sorted((r, v) for r, v, _ in delivered) == sorted(
        [*((r, 1) for r in reports), (reports[0], 2), (reports[0], 3), (reports[1], 2), (reports[2], 2)]
    )
    failed = [e for _, e in attempts if isinstance(e, ReportDeliveryFailed)]
    assert failed
    assert all(e.will_retry for e in failed)
    rows = archive.json("/deliveries?destination=ehr")["destinations"]
    assert rows == []
