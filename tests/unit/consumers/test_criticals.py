"""What waits to be read back: who sees it, what is overdue, and what was said when it was."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta
from typing import Any

import httpx

from consumers.api.freshness import PROJECTION
from infra import clock
from schemas.caller import Caller
from schemas.events import CriticalAcknowledged, CriticalRaised, Named
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import Upsert
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_scope import As

ONE, TWO = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))


def raised(report_id: str, study: str, due: str, *contacts: str) -> CriticalRaised:
    return CriticalRaised(
        critical_id=report_id, report_id=report_id, version=1, study_uids=[study], site="CAI-1", raised_by="person:r",
        raised="2026-03-01T08:00:00Z", contacts=list(contacts), within_s=60, due=due,
    )  # fmt: skip


def archive() -> MemoryArchive:
    """Two studies of two sites with a report each; one result is overdue, one has an hour."""
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1")], site="CAI-1")
    archive.store([part10("1.2.4.1.1", study="1.2.4", series="1.2.4.1", PatientID="P-2")], site="ALX-1")
    for report, study in ((ONE, "1.2.3"), (TWO, "1.2.4")):
        named = [Named(person_id="dr-1", relation="referring")] if report == ONE else []
        archive.report(b"{}", [study], report_id=report, people=named)
    archive.told(raised(ONE, "1.2.3", "2026-03-01T09:00:00Z", "dr-1", "dr-2"))
    archive.told(raised(TWO, "1.2.4", clock.rfc3339(clock.now() + timedelta(hours=1)), "dr-2"))
    key = {"projection": PROJECTION, "topic": "sijil.reports", "partition": 0}
    asyncio.run(archive.tables.apply([Upsert("projection_positions", key, {"next_offset": 1}, 1)]))
    return archive


def ask(archive: MemoryArchive, path: str, role: Role, person: str = "", site: str = "CAI-1") -> httpx.Response:
    caller = Caller(f"person:{person}", role, DEFAULT_PURPOSE[role], sites=frozenset({site}), person_id=person)

    async def run() -> httpx.Response:
        async with archive.client(authenticator=As(caller)) as client:
            return await client.get(path)

    return asyncio.run(run())


def listed(answer: httpx.Response) -> list[Any]:
    return [c["report_id"] for c in answer.json()["criticals"]]


def test_what_waits_and_for_whom() -> None:
    world = archive()
    answer = ask(world, "/criticals", Role.ADMINISTRATOR)
    assert listed(answer) == [ONE, TWO]
    first, second = answer.json()["criticals"]
    assert (first["overdue"], first["contact"], first["contacts"]) == (True, "dr-1", ["dr-1", "dr-2"])
    assert (second["overdue"], second["study_uids"]) == (False, ["1.2.4"])
    assert listed(ask(world, "/criticals?state=overdue", Role.ADMINISTRATOR)) == [ONE]
    assert ask(world, "/criticals?state=late", Role.ADMINISTRATOR).status_code == 400
    # Of a site what it sent, of a doctor what is their patients'
    assert listed(ask(world, "/criticals", Role.RADIOLOGIST, "r-1", "ALX-1")) == [TWO]
    assert listed(ask(world, "/criticals", Role.DOCTOR, "dr-1")) == [ONE]
    assert listed(ask(world, "/criticals?mine=1", Role.DOCTOR, "dr-1")) == [ONE]
    assert listed(ask(world, "/criticals?mine=1", Role.ADMINISTRATOR)) == []
    assert ask(world, "/criticals", Role.TECHNICIAN).status_code == 403


def test_what_was_read_back_waits_no_more_and_stays_known() -> None:
    world = archive()
    said = json.dumps({"words": "bleeding, I call the surgeon"}).encode()
    digest = hashlib.sha256(said).hexdigest()
    world.objects.put("sijil-documents", f"criticals/{ONE}/1.json", said, sha256=digest)
    world.told(
        CriticalAcknowledged(
            critical_id=ONE,
            report_id=ONE,
            version=1,
            study_uids=["1.2.3"],
            site="CAI-1",
            clinician="dr-1",
            recorded_by="person:dr-1",
            channel="phone",
            acknowledged="2026-03-01T09:05:00Z",
            bucket="sijil-documents",
            document_key=f"criticals/{ONE}/1.json",
            document_size=len(said),
            document_sha256=digest,
        )
    )
    assert listed(ask(world, "/criticals", Role.ADMINISTRATOR)) == [TWO]
    (found,) = ask(world, f"/reports/{ONE}/criticals", Role.DOCTOR, "dr-1").json()["criticals"]
    assert (found["clinician"], found["channel"], found["overdue"]) == ("dr-1", "phone", False)
    assert found["words"] == "bleeding, I call the surgeon"
    assert ask(world, f"/reports/{TWO}/criticals", Role.DOCTOR, "dr-1").status_code == 403
    assert ask(world, "/reports/00000000-0000-4000-8000-000000000009/criticals", Role.ADMINISTRATOR).status_code == 404
