"""How long things took: steps from events, percentiles by group, and who may ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.api.routes import times
from consumers.api.times import INTERVALS, STEPS, Way, grouping, percentile, summary, way
from schemas.events import AccessGranted, ReportDelivered, ReportIssued, Shown, StudyCompleted
from schemas.roles import Role
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_criticals import ask

T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
CAIRO = ZoneInfo("Africa/Cairo")
REPORT = "00000000-0000-4000-8000-000000000001"


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def step(name: str, minutes: float, kind: str = "") -> dict[str, Any]:
    return {"step": name, "at": at(minutes), "kind": kind}


def test_a_way_takes_the_first_of_each_step() -> None:
    rows = [step("ordered", -30, "stat"), step("opened", 9), step("opened", 5), step("final", 20), step("final", 30)]
    study = {"first_arrival": at(0), "completed_time": "2026-03-01T08:04:00.000Z", "modalities": {"CT"}}
    found = way("1.2", study, rows)
    assert found.priority == "stat"
    assert {n: found.seconds(n) for n in INTERVALS if found.seconds(n) is not None} == {
        "ordered-arrived": 1800, "arrived-complete": 240, "complete-opened": 60, "complete-final": 960,
        "arrived-final": 1200, "ordered-final": 3000,
    }  # fmt: skip


def test_reading_what_was_preliminary_is_not_reading_the_report() -> None:
    early = [step("preliminary", 1), step("read", 2), step("final", 5)]
    assert "read" not in way("1.2", {}, early).steps
    assert way("1.2", {}, [*early, step("read", 9), step("read", 7)]).seconds("final-read") == 120
    assert way("1.2", {}, early[:2]).steps["read"] == at(2)


def test_groups() -> None:
    ct = Way("1", {"arrived": at(0), "final": at(10)}, ("CT",), "stat")
    mr = Way("2", {"arrived": at(90), "final": at(120)}, ("MR", "SR"))
    ways = [("CAI-1", ct), ("ALX-1", mr)]

    def names(by: str) -> list[str]:
        group = grouping(by, CAIRO)
        assert group is not None
        return [g["group"] for g in summary(ways, group)]

    assert names("site") == ["ALX-1", "CAI-1"]
    assert names("modality") == ["CT", "MR\\SR"]
    assert names("priority") == ["", "stat"]
    assert names("hour") == ["10", "11"]
    assert grouping("colour", CAIRO) is None
    (both,) = summary(ways, lambda site, found: "all")
    assert both["steps"] == {"arrived": 2, "final": 2}
    assert both["intervals"] == {"arrived-final": {"n": 2, "p50": 600, "p90": 1800, "p95": 1800}}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], percent: int) -> None:
    ascending = sorted(round(v, 3) for v in values)
    found = percentile(ascending, percent)
    assert found in ascending
    assert 100 * sum(v <= found for v in ascending) >= percent * len(ascending)
    assert 100 * sum(v < found for v in ascending) < percent * len(ascending)


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
    assert (found["studies"], found["more"], found["known"]) == (2, False, ["ALX-1", "CAI-1"])
    assert ask(archive, f"/times?{span}", Role.MINISTRY).json()["groups"] == found["groups"], "all, without naming any"
    alx, cai = found["groups"]
    assert (alx["group"], alx["studies"], alx["intervals"]) == ("ALX-1", 1, {})
    assert cai["intervals"]["complete-final"] == {"n": 1, "p50": 5.0, "p90": 5.0, "p95": 5.0}
    assert [g["group"] for g in ask(archive, f"/times?{span}", Role.RADIOLOGIST, "r").json()["groups"]] == ["CAI-1"]
    by_hour = ask(archive, f"/times?{span}&by=hour&site=CAI-1", Role.MINISTRY).json()["groups"]
    assert [g["group"] for g in by_hour] == ["10"]
    assert "1.2.3" not in str(by_hour)


def test_of_many_studies_an_even_sample(archive: MemoryArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(40):
        archive.store([part10(f"1.3.{n}.1", study=f"1.3.{n}", series=f"1.3.{n}.0")], site=f"S-{n % 2}")
    monkeypatch.setattr(times, "STUDIES_MAX", 20)
    asked = "/times?since=2025-02-20&until=2025-03-05&site=S-0&site=S-1"
    found = ask(archive, asked, Role.ADMINISTRATOR).json()
    assert (found["studies"], found["listed"], found["more"]) == (20, 40, True)
    assert all(5 <= g["studies"] <= 15 for g in found["groups"]), "not the newest alone"
    assert ask(archive, asked, Role.ADMINISTRATOR).json() == found, "the same each time"
    monkeypatch.setattr(times, "PLACES_MAX", 20)
    assert ask(archive, asked, Role.ADMINISTRATOR).status_code == 400


@pytest.mark.parametrize(
    ("options", "role", "status"),
    [
        ("by=colour", Role.ADMINISTRATOR, 400),
        ("since=2025-01-01&until=2026-01-01", Role.ADMINISTRATOR, 400),
        ("since=2025-01-02&until=2025-01-01", Role.ADMINISTRATOR, 400),
        ("until=tomorrow", Role.ADMINISTRATOR, 400),
        ("site=ALX-1", Role.RADIOLOGIST, 403),
        ("", Role.DOCTOR, 403),
        ("", Role.PATIENT, 403),
    ],
)
def test_what_nobody_can_be_told(archive: MemoryArchive, options: str, role: Role, status: int) -> None:
    assert ask(archive, f"/times?{options}", role, "x").status_code == status
