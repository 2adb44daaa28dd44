"""The health record as a real FHIR server: HAPI's, which refuses what is not valid, and counts each version it makes.

The archive is in memory; what is sent, found again, updated and taken back is the record's, and so it is after it was
killed: what it has acknowledged lies in its file.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from consumers.delivery import deliverer as deliverer_module
from consumers.delivery import queue as queue_module
from consumers.delivery.dossier import Dossiers, event_of_report
from consumers.delivery.ehr.client import FhirClient
from consumers.delivery.ehr.destination import Ehr
from consumers.delivery.entry import Delivered, Entry, Waiting
from consumers.fhir.codes import Resource
from consumers.report_pdf.page import render
from consumers.report_pdf.sheet import Sheet
from infra import clock
from schemas.events import Event, ReportDelivered, ReportDeliveryFailed, ReportIssued
from schemas.identity import derived_id
from tests.ehr.server import EhrServer
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.delivery.around import World, until
from tests.unit.consumers.delivery.test_ehr import REPORT, SYSTEM, Hospital, Record, national_id

pytestmark = [pytest.mark.connected, pytest.mark.slow]


async def printed(sheet: Sheet) -> bytes:
    """A real PDF."""
    return render(sheet)


NUMBER = clock.now_ms() // 1000 % 990
HERS, ANOTHERS, THIRD = (national_id(NUMBER + n) for n in range(3))
STUDIES, REPORTS, VERSIONS = 3, 2, 3
"""Of the third person; reports of each study, versions of each report."""
ANSWERED = 5
"""Transactions after which the record is killed."""
PATIENCE_S = 150.0


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EhrServer]:
    """One that is up already (SIJIL_TEST_EHR: its port), or one of the test's own."""
    running = os.environ.get("SIJIL_TEST_EHR")
    server = EhrServer(tmp_path_factory.mktemp("ehr"), int(running or 0))
    if not running:
        server.start()
        server.ready()
    yield server
    server.kill()


class Connected(Hospital):
    """The hospital of the unit tests, whose record is a server."""

    def __init__(self, base: str) -> None:
        super().__init__(Record(), patient_id=HERS)
        dossiers = Dossiers(self.archive.settings, lambda: self.archive.tables, self.archive.objects, printed)
        self._base, self._dossiers = base, dossiers

    def owes(self, event: Event, subject: str = f"report/{REPORT}") -> Any:
        async def deliver() -> Any:
            ehr = Ehr(
                FhirClient(self._base, timeout_s=PATIENCE_S), self._dossiers, self.state, system=SYSTEM, create=False
            )
            try:
                entry = Entry(derived_id("d", subject, repr(event)), "ehr", subject, event, clock.now())
                return await ehr.deliver(entry)
            finally:
                await ehr.close()

        return asyncio.run(deliver())


def versions(record: EhrServer, kind: str, person: str) -> list[tuple[str, str]]:
    """(status, version) of what stands under somebody."""
    return [(r["status"], r["meta"]["versionId"]) for r in record.of(kind, person)]


@pytest.mark.timeout(900)
def test_the_record_has_what_the_archive_says_once(record: EhrServer) -> None:
    hospital = Connected(record.base)
    event = hospital.reported(1, "لا يوجد نزف")
    assert hospital.owes(event) == Waiting("patient-unknown"), "an archive creates no people"
    assert record.find(f"Patient?identifier={SYSTEM}|{HERS}") == []
    record.register(HERS)
    record.register(ANOTHERS)
    for _ in range(3):
        assert hospital.owes(event) == Delivered()
    assert versions(record, "DiagnosticReport", HERS) == [("final", "1")], "a repeat changes nothing"
    assert versions(record, "ImagingStudy", HERS) == [("available", "1")]
    (report,) = record.of("DiagnosticReport", HERS)
    (study,) = record.of("ImagingStudy", HERS)
    assert report["conclusion"] == "لا يوجد نزف"
    assert report["imagingStudy"] == [{"reference": f"ImagingStudy/{study['id']}"}]
    assert report["presentedForm"][0]["data"].startswith("JVBERi0"), "a PDF"
    assert hospital.owes(hospital.reported(2, "يوجد نزف")) == Delivered()
    assert versions(record, "DiagnosticReport", HERS) == [("final", "2")]
    # Another's after all.
    assert hospital.owes(hospital.belongs_to(ANOTHERS), "study/1.2.9.1") == Delivered()
    assert versions(record, "DiagnosticReport", HERS) == [("entered-in-error", "3")]
    assert [s for s, _ in versions(record, "ImagingStudy", HERS)] == ["entered-in-error"]
    assert versions(record, "DiagnosticReport", ANOTHERS) == [("final", "1")]
    (wrong,), (right,) = record.of("DiagnosticReport", HERS), record.of("DiagnosticReport", ANOTHERS)
    assert "conclusion" not in wrong
    assert right["conclusion"] == "يوجد نزف"


class Watched(FhirClient):
    """Knows what is under way."""

    under_way = answered = 0

    async def transact(self, bundle: Resource, key: str) -> None:
        self.under_way += 1
        try:
            await super().transact(bundle, key)
            self.answered += 1
        finally:
            self.under_way -= 1


def written(archive: MemoryArchive) -> list[ReportIssued]:
    """Reports in all their versions, in the archive; the events that tell of them."""
    for study in (f"1.2.9.7.{n}" for n in range(STUDIES)):
        archive.store([part10(f"{study}.1.1", study=study, series=f"{study}.1", PatientID=THIRD)])
        for report in (derived_id("report", study, n) for n in range(REPORTS)):
            for version in range(1, VERSIONS + 1):
                document = {
                    "resourceType": "DiagnosticReport",
                    "status": "final",
                    "code": {"text": "CT chest"},
                    "imagingStudy": [{"reference": f"urn:oid:{study}"}],
                    "conclusion": f"نسخة {version}",
                }
                archive.report(json.dumps(document).encode(), [study], report_id=report, version=version)
    rows = asyncio.run(_rows(archive, "reports"))
    return sorted(map(event_of_report, rows), key=lambda e: (e.version, e.report_id))


async def _rows(archive: MemoryArchive, table: str) -> list[dict[str, Any]]:
    return [row async for row in archive.tables.scan(table)]


@pytest.mark.timeout(900)
def test_killed_while_it_is_told_it_has_every_version_once_and_in_order(
    record: EhrServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RETRY_MOST_S", "CIRCUIT_FIRST_S", "CIRCUIT_MOST_S"):
        monkeypatch.setattr(queue_module, name, 0.5)
    monkeypatch.setattr(deliverer_module, "CALL_S", PATIENCE_S)
    record.register(THIRD)
    world, archive = World(), MemoryArchive()
    issued = written(archive)
    assert len(issued) == STUDIES * REPORTS * VERSIONS
    dossiers = Dossiers(archive.settings, lambda: archive.tables, archive.objects, printed)

    async def scenario() -> None:
        client = Watched(record.base, timeout_s=PATIENCE_S)
        ehr = Ehr(client, dossiers, world.state, system=SYSTEM, create=False)
        deliverer = world.deliverer(ehr)
        await world.happens(*issued)
        async with world.running(deliverer):
            await until(lambda: client.answered >= ANSWERED and client.under_way > 1, PATIENCE_S)
            record.kill()
            await until(lambda: deliverer.queue.circuit.open, PATIENCE_S)
            assert ANSWERED <= client.answered < len(issued)
            assert len(deliverer.queue) >= len(issued) - client.answered, "nothing is given up"
            record.start(validates=False)  # before the same was valid
            await asyncio.to_thread(record.ready)
            await until(lambda: not len(deliverer.queue), PATIENCE_S)

    asyncio.run(scenario())
    reports = record.of("DiagnosticReport", THIRD)
    assert len(reports) == STUDIES * REPORTS
    for report in reports:
        history = record.find(f"DiagnosticReport/{report['id']}/_history")
        assert [(r["conclusion"], r["meta"]["versionId"]) for r in reversed(history)] == [
            (f"نسخة {n}", str(n)) for n in range(1, VERSIONS + 1)
        ]
    assert versions(record, "ImagingStudy", THIRD) == [("available", "1")] * STUDIES
    ended = [e for _, e in world.chain.events]
    delivered = [(e.report_id, e.version) for e in ended if isinstance(e, ReportDelivered)]
    assert sorted(delivered) == sorted((e.report_id, e.version) for e in issued), "each delivery ended once"
    failed = [e for e in ended if isinstance(e, ReportDeliveryFailed)]
    assert {(e.reason, e.will_retry) for e in failed} == {("not-reachable", True)}
