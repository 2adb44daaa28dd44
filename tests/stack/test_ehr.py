"""The health record as a real FHIR server: HAPI's, which refuses what is not valid, and counts each version it makes.

The archive is in memory; what is sent, found again, updated and taken back is the record's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from consumers.delivery.dossier import Dossiers
from consumers.delivery.ehr.client import FhirClient
from consumers.delivery.ehr.destination import Ehr
from consumers.delivery.entry import Delivered, Entry, Waiting
from consumers.report_pdf.page import render
from consumers.report_pdf.sheet import Sheet
from infra import clock
from schemas.events import Event
from schemas.identity import derived_id
from tests.ehr.server import EhrServer
from tests.unit.consumers.delivery.test_ehr import REPORT, SYSTEM, Hospital, Record, national_id

pytestmark = [pytest.mark.connected, pytest.mark.slow]


async def printed(sheet: Sheet) -> bytes:
    """A real PDF."""
    return render(sheet)


NUMBER = clock.now_ms() // 1000 % 990
HERS, ANOTHERS = national_id(NUMBER), national_id(NUMBER + 1)


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
            ehr = Ehr(FhirClient(self._base), self._dossiers, self.state, system=SYSTEM, create=False)
            try:
                entry = Entry(derived_id("d", subject, repr(event)), "ehr", subject, event, clock.now())
                return await ehr.deliver(entry)
            finally:
                await ehr.close()

        return asyncio.run(deliver())


def versions(record: EhrServer, kind: str, person: str) -> list[tuple[str, str]]:
    """(status, version) of what stands under somebody."""
    return [(r["status"], r["meta"]["versionId"]) for r in record.of(kind, person)]


@pytest.mark.timeout(460)
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
