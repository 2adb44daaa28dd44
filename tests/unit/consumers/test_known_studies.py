"""What results that come in are matched by: studies as they are now, with the files that people joined."""

from __future__ import annotations

import asyncio

from consumers.known_studies import ReadModels
from schemas.events import PatientLinked, PatientUnlinked
from schemas.identity import patient_key
from schemas.known_study import KnownStudy
from tests.unit.consumers.archive import SECRET, MemoryArchive, part10


def known(archive: MemoryArchive) -> KnownStudy:
    """As a process that has just started reads it."""
    (found,) = asyncio.run(ReadModels(archive.tables).by_accession("A-1"))
    assert asyncio.run(ReadModels(archive.tables).by_uid(["1.2.3", "1.2.9"])) == [found]
    return found


def test_a_study_is_in_the_files_that_people_joined_until_they_part_them() -> None:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1", PatientID="TMP-1", AccessionNumber="A-1")], site="CAI-1")
    now, own = (
        patient_key(SECRET, patient_id=n, issuer="CAI-1", birth_date="", sex="", study_uid="").value
        for n in ("TMP-1", "P-1")
    )
    assert known(archive).patient_id == "TMP-1"
    assert known(archive).files == {now}
    said = {
        "link_id": "00000000-0000-4000-8000-000000000001",
        "patient_key": own,
        "other_key": now,
        "reason": "adt-a40",
    }
    said |= {"stated_by": "hl7:H1@10.0.0.1", "recorded": "2026-03-01T08:00:00Z"}
    archive.told(PatientLinked(**said))
    assert known(archive).files == {now, own}
    archive.told(PatientUnlinked(**said))  # type: ignore[arg-type]
    assert known(archive).files == {now}
