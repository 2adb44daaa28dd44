"""Modality worklist by DCMTK's findscu: what a device is told, in which words, and when an order leaves its list."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pydicom
import pytest
from pydicom import Dataset

from consumers.dicom.worklist_item import PRIVATE_SCHEME, State, item, state
from consumers.dicom.worklist_query import DAYS_AHEAD, DAYS_BACK, read
from infra import clock
from infra.ae_table import Ae
from schemas.errors import Invalid
from schemas.events import AccessDenied, AccessGranted
from schemas.identity import NATIONAL_ISSUER
from schemas.tables import ORDER_COLUMNS, Delete, Upsert
from tests.unit.consumers.archive import MemoryArchive
from tests.unit.consumers.dicom_door import OpenDoor, open_door

CAIRO = ZoneInfo("Africa/Cairo")
NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
TODAY = NOW.astimezone(CAIRO).date()
KEY = "k1:" + "a" * 43
DEVICES = (
    Ae("CT1", "127.0.0.1", 0, site="CAIRO"),
    Ae("CT9", "127.0.0.1", 0, site="GIZA"),
)


def order(n: int, **changes: Any) -> dict[str, Any]:
    """A row of today's orders at CAIRO."""
    text = dict.fromkeys(name for name, kind in ORDER_COLUMNS.items() if kind == "text")
    return {
        **dict.fromkeys(text, ""),
        "order_id": f"0195{n:04x}-0000-7000-8000-000000000000",
        "version": 1,
        "status": "active",
        "site": "CAIRO",
        "day": TODAY.strftime("%Y%m%d"),
        "scheduled": f"{TODAY:%Y%m%d}{8 + n:02}3000",
        "priority": "urgent",
        "accession": f"S25-{n}",
        "study_uid": f"2.25.{1000 + n}",
        "patient_key": KEY,
        "patient_name": "Hassan^Mona=حسن^منى",
        "patient_id": f"P-{n}",
        "issuer": "CAIRO",
        "birth_date": "19800101",
        "sex": "F",
        "modality": "CT",
        "procedure_code": "24627-2",
        "procedure_scheme": "http://loinc.org",
        "procedure_text": "CT chest",
        "reason": "سعال منذ شهر",
        "referrer_name": "Said^Ali",
        "recorded": clock.rfc3339(clock.now()),
        **changes,
    }


@dataclass
class Site:
    """Orders in tables, and devices that ask for them."""

    archive: MemoryArchive
    door: OpenDoor
    folder: Path
    written: list[Upsert] = field(default_factory=list)

    def write(self, table: str, key: dict[str, Any], columns: dict[str, Any]) -> None:
        self.written.append(Upsert(table, key, columns, len(self.written) + 1))
        asyncio.run(self.archive.tables.apply(self.written[-1:]))

    def clear(self) -> None:
        gone = [Delete(w.table, w.key, len(self.written)) for w in self.written]
        asyncio.run(self.archive.tables.apply(gone))
        self.archive.journal.published.clear()

    def place(self, *orders: dict[str, Any]) -> None:
        for row in orders:
            for table, key in (
                ("orders_by_site_day", ("site", "day", "order_id")),
                ("orders_by_accession", ("site", "accession", "order_id")),
            ):
                columns = {n: v for n, v in row.items() if n not in key}
                self.write(table, {n: row[n] for n in key}, columns)

    def step(self, status: str, study_uid: str = "2.25.9", accession: str = "") -> None:
        self.write("steps_by_study", {"study_uid": study_uid, "step_uid": "1.9"}, {"status": status})
        if accession:
            key = {"site": "CAIRO", "accession": accession, "step_uid": "1.9"}
            self.write("steps_by_accession", key, {"status": status})

    def ask(self, *keys: str, ae: str = "CT1", options: Sequence[str] = ()) -> list[Dataset]:
        """findscu -W: what it wrote, in the order of its answers."""
        for old in self.folder.glob("rsp*.dcm"):
            old.unlink()
        found = self.run(*keys, ae=ae, options=("-X", "-od", str(self.folder), *options))
        assert found.returncode == 0, found.stderr
        return [pydicom.dcmread(path) for path in sorted(self.folder.glob("rsp*.dcm"))]

    def run(self, *keys: str, ae: str = "CT1", options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        asked = [part for key in keys for part in ("-k", key)]
        return self.door.run("findscu", "-W", "-aet", ae, *options, *asked)


STEP = "(0040,0100)[0]."
WANTED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID", "RequestedProcedureID",
    "RequestedProcedureDescription", "RequestedProcedureCodeSequence", "ReasonForTheRequestedProcedure",
    "RequestedProcedurePriority", "ReferringPhysicianName", "PatientWeight",
    f"{STEP}Modality", f"{STEP}ScheduledStationAETitle", f"{STEP}ScheduledProcedureStepStartDate",
    f"{STEP}ScheduledProcedureStepStartTime", f"{STEP}ScheduledProcedureStepID",
    f"{STEP}ScheduledProcedureStepStatus",
)  # fmt: skip


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    archive = MemoryArchive()
    with open_door(archive, callers=DEVICES) as door:
        yield Site(archive, door, tmp_path_factory.mktemp("answers"))


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day of the orders is the door's, also where the tests go on after midnight."""
    monkeypatch.setattr(clock, "now", lambda: NOW)


@pytest.fixture
def site(open_site: Site) -> Iterator[Site]:
    yield open_site
    open_site.clear()


def accessions(found: Sequence[Dataset]) -> list[str]:
    return [str(d.AccessionNumber) for d in found]


def test_a_device_is_told_all_it_needs(site: Site) -> None:
    site.place(order(1, station_ae="CT1"))
    (found,) = site.ask(*WANTED, options=["-k", "SpecificCharacterSet=ISO_IR 192"])
    assert str(found.PatientName) == "Hassan^Mona=حسن^منى"
    assert (found.PatientID, found.IssuerOfPatientID, found.AccessionNumber) == ("P-1", "CAIRO", "S25-1")
    assert (found.StudyInstanceUID, found.RequestedProcedureID) == ("2.25.1001", "S25-1")
    assert (found.RequestedProcedureDescription, found.RequestedProcedurePriority) == ("CT chest", "HIGH")
    assert found.RequestedProcedureCodeSequence[0].CodingSchemeDesignator == "LN"
    assert found.ReasonForTheRequestedProcedure == "سعال منذ شهر"
    assert found.PatientWeight is None, "asked for and not known: there, and empty"
    (step,) = found.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepID) == ("CT", "CT1", "S25-1")
    assert step.ScheduledProcedureStepStartDate == f"{TODAY:%Y%m%d}"
    assert (step.ScheduledProcedureStepStartTime, step.ScheduledProcedureStepStatus) == ("093000", "SCHEDULED")
    (seen,) = site.archive.journal.events(AccessGranted)
    assert (seen.action, seen.actor, seen.shown[0].study_uid) == ("worklist", "ae:CT1@127.0.0.1", "2.25.1001")


def test_what_is_asked_for_is_matched(site: Site) -> None:
    site.place(
        order(1),
        order(2, modality="MR", station_ae="MR1", patient_name="Müller^Jürgen"),
        order(3, day=f"{TODAY + timedelta(1):%Y%m%d}", scheduled=f"{TODAY + timedelta(1):%Y%m%d}070000"),
    )
    today, step = f"{STEP}ScheduledProcedureStepStartDate={TODAY:%Y%m%d}", "AccessionNumber"
    assert accessions(site.ask(step)) == ["S25-1", "S25-2", "S25-3"], "by their time"
    assert accessions(site.ask(step, today)) == ["S25-1", "S25-2"]
    assert accessions(site.ask(step, today, f"{STEP}Modality=CT")) == ["S25-1"]
    assert accessions(site.ask(step, today, f"{STEP}ScheduledStationAETitle=CT1")) == ["S25-1"], "another's is not told"
    assert accessions(site.ask(step, "PatientName=HASS*")) == ["S25-1", "S25-3"]
    assert accessions(site.ask(step, "PatientID=P-2")) == ["S25-2"]
    assert accessions(site.ask("AccessionNumber=S25-3")) == ["S25-3"]
    span = f"{TODAY:%Y%m%d}-{TODAY + timedelta(1):%Y%m%d}"
    times = f"{STEP}ScheduledProcedureStepStartTime=1000-0800"
    found = site.ask(step, f"{STEP}ScheduledProcedureStepStartDate={span}", times)
    assert accessions(found) == ["S25-2", "S25-3"], "from today at ten to tomorrow at eight"
    assert site.ask(step, "PatientID=P-77") == []
    assert site.archive.journal.events(AccessGranted)[-1].shown == [], "that somebody looked is recorded too"


def test_an_order_for_any_station_is_the_asking_one_s(site: Site) -> None:
    site.place(order(1))
    (found,) = site.ask("AccessionNumber", f"{STEP}ScheduledStationAETitle")
    assert found.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "CT1"
    (found,) = site.ask("AccessionNumber", f"{STEP}ScheduledStationAETitle=CT_NORTH")
    assert found.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "CT_NORTH"


def test_a_site_s_orders_are_its_own_devices_alone(site: Site) -> None:
    site.place(order(1))
    assert site.ask("AccessionNumber", ae="CT9") == []
    assert site.ask("AccessionNumber=S25-1", ae="CT9") == []
    assert site.archive.journal.events(AccessDenied) == []


def test_an_order_leaves_the_list_when_it_is_done(site: Site) -> None:
    site.place(order(1), order(2), order(3, status="revoked"), order(4), order(5))
    site.step("in-progress", "2.25.1001")
    site.step("discontinued", "2.25.1002")
    site.step("completed", "1.2.3.4", "S25-4")
    site.write("studies", {"study_uid": "2.25.1005"}, {"completed_revision": 7})
    status = f"{STEP}ScheduledProcedureStepStatus"
    found = site.ask("AccessionNumber", status)
    said = [(str(d.AccessionNumber), d.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus) for d in found]
    assert said == [("S25-1", "STARTED"), ("S25-2", "SCHEDULED")], "what was broken off has to be done again"
    assert accessions(site.ask("AccessionNumber", f"{status}=STARTED")) == ["S25-1"]


def test_names_are_in_the_character_set_of_the_query(site: Site) -> None:
    site.place(order(1, patient_name="حسن^منى", reason=""))
    (arabic,) = site.ask("PatientName", "SpecificCharacterSet=ISO_IR 127")
    assert (arabic.SpecificCharacterSet, str(arabic.PatientName)) == ("ISO_IR 127", "حسن^منى")
    (latin,) = site.ask("PatientName", "SpecificCharacterSet=ISO_IR 100")
    assert (latin.SpecificCharacterSet, str(latin.PatientName)) == ("ISO_IR 192", "حسن^منى")


def test_keys_that_are_not_matched_are_said_to_be(site: Site) -> None:
    site.place(order(1))
    said = site.run("AccessionNumber", "PatientWeight=70")
    assert "Pending: WarningUnsupportedOptionalKeys" in said.stderr + said.stdout


def test_more_days_than_one_query_may_be_about(site: Site) -> None:
    too_wide = site.run("AccessionNumber", f"{STEP}ScheduledProcedureStepStartDate=20200101-20251231")
    assert "DataSetDoesNotMatchSOPClass" in too_wide.stderr, "A900"


# ------------------------------------------------------------------------------------------------ pure


def asked(text: str = "") -> Dataset:
    keys, step = Dataset(), Dataset()
    step.ScheduledProcedureStepStartDate = text
    keys.ScheduledProcedureStepSequence = [step]
    return keys


def test_days_of_a_query() -> None:
    today = date(2025, 3, 1)
    around = read(asked(), today).days
    assert (around[0], around[-1], len(around)) == ("20250228", "20250315", DAYS_BACK + DAYS_AHEAD + 1)
    assert read(asked("20250310"), today).days == ("20250310",)
    assert read(asked("20250310-20250312"), today).days == ("20250310", "20250311", "20250312")
    ahead = read(asked("20250310-"), today).days
    assert (ahead[0], ahead[-1]) == ("20250310", "20250324")
    back = read(asked("-20250220"), today).days
    assert (back[0], back[-1]) == ("20250219", "20250220")
    for wrong in ("20250101-20251231", "20250231"):
        with pytest.raises(Invalid):
            read(asked(wrong), today)


def test_by_accession_number_every_day_counts() -> None:
    keys = Dataset()
    keys.AccessionNumber = "S25-1"
    found = read(keys, date(2025, 3, 1))
    assert (found.days, found.accession) == ((), "S25-1")
    keys.AccessionNumber = "S25-*"
    assert read(keys, date(2025, 3, 1)).days


def test_a_patient_who_just_came_in_has_the_time_of_the_order() -> None:
    row = order(1, scheduled="", day="20250301", recorded="2025-03-01T08:15:00Z")
    (step,) = item(row, stands=State.SCHEDULED, zone=CAIRO)["00400100"]["Value"]
    assert (step["00400002"]["Value"], step["00400003"]["Value"]) == (["20250301"], ["101500"])
    (step,) = item({**row, "day": "20250302"}, stands=State.SCHEDULED, zone=CAIRO)["00400100"]["Value"]
    assert (step["00400002"]["Value"], step["00400003"]["Value"]) == (["20250302"], ["000000"])


def test_values_fit_their_vr() -> None:
    row = order(1, procedure_scheme="https://his.example/codes", procedure_code="X" * 40, issuer=NATIONAL_ISSUER)
    found = item(row, stands=State.SCHEDULED, zone=CAIRO)
    (code,) = found["00321064"]["Value"]
    assert (code["00080100"]["Value"], code["00080102"]["Value"]) == (["X" * 16], [PRIVATE_SCHEME])
    assert "Value" not in found["00100021"], "a national ID needs no issuer"


def test_where_an_order_stands() -> None:
    active, done = order(1), {"completed_revision": 3}
    assert state(active, [], None) is State.SCHEDULED
    assert state(active, [], {"completed_revision": None}) is State.STARTED, "images without MPPS"
    assert state(active, [], done) is State.DONE
    assert state(active, [{"status": "completed"}, {"status": "in-progress"}], None) is State.DONE
    assert state(order(1, status="on-hold"), [], None) is State.DONE
