"""The health record down for a whole run, then up; the delivery process killed between its steps: all arrives, once.

The record counts each version of a resource that it has made; HAPI's own does the same in tests/stack/test_ehr.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from infra import clock
from infra.kafka import KafkaLog
from infra.settings import Settings
from schemas.envelope import decode
from schemas.events import ReportDelivered, ReportDeliveryFailed
from tests.archive import Archive, wait_until
from tests.ehr.double import Double
from tests.local_stack import LocalStack, free_offset, superuser
from tests.unit.consumers.archive import part10
from tests.unit.consumers.delivery.test_ehr import national_id

pytestmark = [pytest.mark.connected, pytest.mark.slow]

PEOPLE = [national_id(n) for n in (301, 302, 303)]
ENDS_S = 120.0


class Delivery:
    """A delivery process of the test's own, beside that of the archive, which has no health record."""

    def __init__(self, whole: LocalStack, record: Double) -> None:
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
        """(event id, event) of the attempts to deliver these to the record, each record of the log once."""
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
            event = envelope.event
            if isinstance(event, ReportDelivered | ReportDeliveryFailed) and event.destination == "ehr":
                found.append((envelope.id, event))
        return found


def owed(archive: Archive, **wanted: str) -> list[dict[str, Any]]:
    """What the API says is owed."""
    rows = archive.json("/deliveries?destination=ehr")["deliveries"]
    return [r for r in rows if all(r.get(n) == v for n, v in wanted.items())]


def reported(archive: Archive, study: str, text: str, report: str = "", version: int = 0) -> str:
    """A report, or what follows its `version`; its id."""
    document = {
        "resourceType": "DiagnosticReport",
        "status": "amended" if version else "final",
        "code": {"text": "CT chest"},
        "imagingStudy": [{"reference": f"urn:oid:{study}"}],
        "conclusion": text,
    }
    headers = {"Content-Type": "application/fhir+json"} | ({"If-Match": f'W/"{version}"'} if version else {})
    method, url = ("PUT", f"{archive.base}/reports/{report}") if version else ("POST", f"{archive.base}/reports")
    answer = httpx.request(method, url, content=json.dumps(document).encode(), headers=headers, timeout=60)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["report_id"])


def listed(whole: LocalStack, *options: str) -> list[dict[str, Any]]:
    """What `sijil deliveries list` says; its status says whether anything is late."""
    done = whole.sijil("deliveries", "list", "--destination", "ehr", "--json", *options)
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert done.returncode == any(of["late"] for of in told["destinations"])
    return list(told["deliveries"])


@pytest.mark.timeout(600)
def test_everything_arrives_once(whole: LocalStack, archive: Archive) -> None:
    record = Double(*PEOPLE[:2])
    delivery = Delivery(whole, record)
    root = f"1.2.826.0.9.6.{clock.now_ms()}"
    studies = [f"{root}.{n}" for n in range(len(PEOPLE))]
    for study, person in zip(studies, PEOPLE, strict=True):
        answer = archive.stow([part10(f"{study}.1.1", study=study, series=f"{study}.1", PatientID=person)])
        assert answer.status_code == 200, answer.text
    for study in studies:
        wait_until(lambda study=study: archive.json(f"/studies/{study}").get("completed"), 60, "complete")  # type: ignore[misc]
    reports = [reported(archive, study, f"first {n}") for n, study in enumerate(studies)]
    reported(archive, studies[0], "second 0", reports[0], 1)
    try:
        # Between rows and cursor, nobody being there: what was read is read again.
        assert delivery.start("delivery.accepted").wait(ENDS_S) == -9
        # Out of reach for a whole run; then between call and mark.
        process = delivery.start("delivery.called")
        wait_until(lambda: len(owed(archive)) == 7, 60, "three studies and four versions are owed")
        wait_until(lambda: owed(archive, state="retrying", reason="not-reachable"), 60, "it was tried")
        assert record.taken == []
        record.open()
        assert process.wait(ENDS_S) == -9
        assert record.taken, "it was handed over"
        assert len(owed(archive)) == 7, "and is not known to be"
        # Between mark and event.
        assert delivery.start("delivery.published").wait(ENDS_S) == -9
        assert len(owed(archive)) >= 6
        with delivery.running():
            wait_until(lambda: len(owed(archive)) == 2, 60, "what can be delivered is")
            wait_until(lambda: {r.get("reason") for r in owed(archive)} == {"patient-unknown"}, 60, "nobody it knows")
            assert {r.get("study_uid") or r["report_id"] for r in listed(whole)} == {studies[2], reports[2]}
            assert all(r["late"] for r in listed(whole, "--late"))
            record.record.people.append(PEOPLE[2])
            again = whole.sijil("deliveries", "again", "ehr")
            assert again.returncode == 0, again.stderr
            wait_until(lambda: not owed(archive), 60, "a person's wish is done at once")
            reported(archive, studies[1], "second 1", reports[1], 1)
            wait_until(lambda: [r["conclusion"] for r in filed(record, 1)] == ["second 1"], 60, "the next version")
            wait_until(lambda: not owed(archive), 60, "all is delivered")
    finally:
        record.close()
    assert [[r["conclusion"] for r in filed(record, n)] for n in range(3)] == [["second 0"], ["second 1"], ["first 2"]]

    versions = {
        (r["resourceType"], r["subject"]["reference"].rpartition("|")[2]): len(record.record.versions[url])
        for url, r in record.record.has.items()
    }
    assert versions == {
        **{("ImagingStudy", person): 1 for person in PEOPLE},
        **{("DiagnosticReport", person): n for person, n in zip(PEOPLE, (2, 2, 1), strict=True)},
    }, "each version once, whatever was repeated"
    repeated = [key for key, count in Counter(record.taken).items() if count > 1]
    assert repeated, "under the same key"
    # Each delivery that ended is an event, once; what failed before says why.
    attempts = delivery.attempts(set(reports))
    delivered = {(e.report_id, e.version, id) for id, e in attempts if isinstance(e, ReportDelivered)}
    assert sorted((r, v) for r, v, _ in delivered) == sorted(
        [*((r, 1) for r in reports), *((r, 2) for r in reports[:2])]
    )
    failed = [e for _, e in attempts if isinstance(e, ReportDeliveryFailed)]
    assert {(e.reason, e.will_retry) for e in failed} == {("not-reachable", True)}


def filed(record: Double, person: int) -> list[dict[str, Any]]:
    """The reports under somebody."""
    return record.record.of("DiagnosticReport", PEOPLE[person])
