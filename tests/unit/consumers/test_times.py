"""How long things took, asked for: sums by group, their percentiles, and who may ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from consumers.api.routes import times
from consumers.api.times import Sums, grouping
from schemas.events import AccessGranted, ReportDelivered, ReportIssued, Shown, StudyCompleted
from schemas.roles import Role
from schemas.times import STEPS, Way, cell, codes, counted
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_criticals import ask

T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
CAIRO = ZoneInfo("Africa/Cairo")
REPORT = "00000000-0000-4000-8000-000000000001"


def row(site: str, hour: str, *ways: Way) -> dict[str, object]:
    cells, counts = counted((cell(w), codes(w)) for w in ways)
    return {"site": site, "hour": hour, "cells": cells, "counts": counts}


def test_groups() -> None:
    def took(minutes: int) -> dict[str, datetime]:
        return {"arrived": T0, "final": T0 + timedelta(minutes=minutes)}

    ct, mr = Way("1", took(10), ("CT",), "stat"), Way("2", took(30), ("MR", "SR"))
    rows = [row("CAI-1", "2026030108", ct), row("ALX-1", "2026030109", mr), row("ALX-1", "2026030110")]

    def names(by: str) -> list[str]:
        group = grouping(by, CAIRO)
        assert group is not None
        sums = Sums(group)
        sums.add(rows)
        return [g["group"] for g in sums.summary()]

    assert names("site") == ["ALX-1", "CAI-1"]
    assert names("modality") == ["CT", "MR\\SR"]
    assert names("priority") == ["", "stat"]
    assert names("hour") == ["10", "11"]
    assert grouping("colour", CAIRO) is None
    both = Sums(lambda site, hour, cell: "all")
    both.add(rows[:1])
    both.add(rows[1:])
    both.add(rows[2:])
    (told,) = both.summary()
    assert (told["studies"], told["steps"]) == (2, {"arrived": 2, "final": 2})
    assert told["intervals"]["arrived-final"]["n"] == 2
    assert told["intervals"]["arrived-final"]["p50"] == pytest.approx(600, rel=0.01)
    assert told["intervals"]["arrived-final"]["p95"] == pytest.approx(1800, rel=0.01)
    assert Sums(lambda site, hour, cell: "all").summary() == []


# ------------------------------------------------------------------------------------------------ from events


def report(status: str, version: int) -> ReportIssued:
    return ReportIssued(
        report_id=REPORT, version=version, status=status, study_uids=["1.2.3"], site="CAI-1",
        issued="2026-03-01T08:00:00Z", bucket="docs", document_key="r", document_size=1, document_sha256="a" * 64,
    )  # fmt: skip


def access(role: str, action: str, study: str | None) -> AccessGranted:
    return AccessGranted(
        access_id="01950000-0000-7000-8000-000000000001", actor="person:1", role=role, purpose="TREAT", action=action,
        occurred="2026-03-01T08:00:00Z", study_uid=study, shown=[] if study else [Shown(study_uid="1.2.3")],
    )  # fmt: skip


@pytest.fixture
def archive() -> MemoryArchive:
    """A study that arrived, was completed, opened, reported, signed and read; another that only arrived."""
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1")], site="CAI-1")
    archive.store([part10("1.2.4.1.1", study="1.2.4", series="1.2.4.1")], site="ALX-1")
    archive.told(
        StudyCompleted(
            study_uid="1.2.3",
            basis="quiet",
            revision=2,
            as_of_partition=0,
            as_of_offset=1,
            packs=1,
            series=1,
            instances=1,
            bytes=1,
            first_arrival="2025-03-01T08:00:01Z",
            last_arrival="2025-03-01T08:00:01Z",
        )
    )
    archive.told(access("technician", "retrieve", "1.2.3"))
    archive.told(access("radiologist", "retrieve", "1.2.3"))
    archive.told(report("preliminary", 1))
    archive.told(access("doctor", "read-report", "1.2.3"))
    archive.told(report("final", 2))
    archive.told(access("radiologist", "read-report", "1.2.3"))
    archive.told(access("patient", "read-report", None))
    archive.told(report("amended", 3))
    # Who was only notified has no report
    for destination, occurred in (("subscription-1", "2025-03-01T08:00:01Z"), ("ehr", "2025-03-01T08:01:00Z")):
        archive.told(
            ReportDelivered(
                delivery_id=REPORT, destination=destination, attempt=1, occurred=occurred, report_id=REPORT, version=2
            )
        )
    return archive


def test_the_times_of_a_study(archive: MemoryArchive) -> None:
    found = ask(archive, "/studies/1.2.3/times", Role.ADMINISTRATOR).json()
    assert list(found["times"]) == [s for s in STEPS if s != "ordered"]
    assert found["times"]["delivered"] == "2025-03-01T08:01:00+00:00"
    # The archive in memory takes in a record a second: technicians open nothing, radiologists read no report
    assert found["seconds"]["complete-opened"] == 2
    assert found["seconds"]["complete-final"] == 5
    assert found["seconds"]["final-read"] == 2
    assert ask(archive, "/studies/1.2.9/times", Role.ADMINISTRATOR).status_code == 404
    assert ask(archive, "/studies/1.2.4/times", Role.RADIOLOGIST, "r-1").status_code == 403


def test_the_times_of_sites(archive: MemoryArchive) -> None:
    span = "since=2025-02-20&until=2025-03-05"
    found = ask(archive, f"/times?{span}&site=CAI-1&site=ALX-1", Role.ADMINISTRATOR).json()
    assert (found["studies"], found["error"], found["known"]) == (2, 0.01, ["ALX-1", "CAI-1"])
    assert ask(archive, f"/times?{span}", Role.MINISTRY).json()["groups"] == found["groups"], "all, without naming any"
    alx, cai = found["groups"]
    assert (alx["group"], alx["studies"], alx["intervals"]) == ("ALX-1", 1, {})
    assert cai["steps"] == {s: 1 for s in STEPS if s != "ordered"}
    assert cai["intervals"]["complete-final"] == {"n": 1} | dict.fromkeys(
        ("p50", "p90", "p95"), pytest.approx(5, rel=0.01)
    )
    assert [g["group"] for g in ask(archive, f"/times?{span}", Role.RADIOLOGIST, "r").json()["groups"]] == ["CAI-1"]
    by_hour = ask(archive, f"/times?{span}&by=hour&site=CAI-1", Role.MINISTRY).json()["groups"]
    assert [g["group"] for g in by_hour] == ["10"]
    assert "1.2.3" not in str(by_hour)


def test_every_study_of_many_is_counted_on_its_day(archive: MemoryArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(40):
        archive.store([part10(f"1.3.{n}.1", study=f"1.3.{n}", series=f"1.3.{n}.0")], site=f"S-{n % 2}")
    asked = "/times?site=S-0&site=S-1&since="
    found = ask(archive, f"{asked}2025-03-01&until=2025-03-01", Role.ADMINISTRATOR).json()
    assert [(g["group"], g["studies"]) for g in found["groups"]] == [("S-0", 20), ("S-1", 20)]
    for since, until in (("2024-03-02", "2025-02-28"), ("2025-03-02", "2025-03-02")):
        assert ask(archive, f"{asked}{since}&until={until}", Role.ADMINISTRATOR).json()["studies"] == 0
    monkeypatch.setattr(times, "PLACES_MAX", 20)
    assert ask(archive, f"{asked}2025-02-20&until=2025-03-05", Role.ADMINISTRATOR).status_code == 400


@pytest.mark.parametrize(
    ("options", "role", "status"),
    [
        ("by=colour", Role.ADMINISTRATOR, 400),
        ("since=2025-01-01&until=2026-01-02", Role.ADMINISTRATOR, 400),
        ("since=2025-01-02&until=2025-01-01", Role.ADMINISTRATOR, 400),
        ("until=tomorrow", Role.ADMINISTRATOR, 400),
        ("site=ALX-1", Role.RADIOLOGIST, 403),
        ("", Role.DOCTOR, 403),
        ("", Role.PATIENT, 403),
    ],
)
def test_what_nobody_can_be_told(archive: MemoryArchive, options: str, role: Role, status: int) -> None:
    assert ask(archive, f"/times?{options}", role, "x").status_code == status
