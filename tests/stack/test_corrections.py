"""The life of a corrected study on the real stack: what people decide shows everywhere, and what is stored stays.

`test_rebuild.py` runs behind this in a session, and finds the same tables made anew from what was decided here.
"""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pydicom
import pytest

from infra import clock
from tests.archive import Archive, dcmtk, wait_until
from tests.bench.corpus import make_ct
from tests.unit.streams.test_corrections import note

pytestmark = [pytest.mark.connected, pytest.mark.slow]


def decide(archive: Archive, study: str, **asked: Any) -> str:
    """The id of a correction that was taken in."""
    id = str(UUID(str(clock.uuid7())))
    answer = httpx.post(f"{archive.base}/studies/{study}/corrections", json={"id": id, **asked}, timeout=60)
    assert answer.status_code == 201, answer.text
    return id


def listed(archive: Archive, query: str) -> list[str]:
    """Study Instance UIDs of a search."""
    return [d["0020000D"]["Value"][0] for d in archive.json(f"/dicom-web/studies?{query}")]


def found_by_dicom(archive: Archive, patient_id: str) -> str:
    """What DCMTK's findscu shows of a patient's studies."""
    settings = archive.settings
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"PatientID={patient_id}", "-k", "StudyInstanceUID"]
    where = ["-aec", settings.ae_title, settings.dicom_host, str(settings.dicom_port)]
    command = [dcmtk("findscu"), "-v", "-S", *keys, *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr


def changed(data: bytes, **values: Any) -> bytes:
    """The instance with other values under its own UID."""
    ds = pydicom.dcmread(BytesIO(data))
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    out = BytesIO()
    ds.save_as(out)
    return out.getvalue()


def test_the_life_of_a_corrected_study(archive: Archive, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path, studies=1, slices=4, seed=96, rows=16)
    uid, series, first = study[0].study, study[0].series, study[0].sop
    files = [i.path.read_bytes() for i in study]
    assert archive.stow(files).status_code == 200
    wait_until(lambda: archive.instance_count(uid) == 4, 30, "queryable")
    old = pydicom.dcmread(BytesIO(files[0]))
    before = archive.json(f"/studies/{uid}")["patient_key"]
    path = f"/dicom-web/studies/{uid}/series/{series}/instances/{first}"

    # To another patient
    decide(archive, uid, type="reassign", patient={"PatientID": "C-91", "PatientName": "Salem^Ali=علي سالم"})
    wait_until(lambda: listed(archive, "PatientID=C-91") == [uid], 20, "found under the new patient")
    assert uid not in listed(archive, f"PatientID={old.PatientID}")
    assert uid in listed(archive, "PatientName=علي*")
    assert uid in found_by_dicom(archive, "C-91")
    assert uid not in found_by_dicom(archive, str(old.PatientID))
    after = archive.json(f"/studies/{uid}")["patient_key"]
    assert after != before
    assert [s["study_uid"] for s in archive.json(f"/patients/{after}/studies")["studies"]] == [uid]
    assert uid not in [s["study_uid"] for s in archive.json(f"/patients/{before}/studies")["studies"]]

    def corrected() -> bool:
        headers = archive.json(f"/dicom-web/studies/{uid}/metadata")
        return {h["00100020"]["Value"][0] for h in headers} == {"C-91"}

    wait_until(corrected, 10, "the metadata are the new patient's")
    got = pydicom.dcmread(BytesIO(archive.get(path, "application/dicom").content))
    assert (got.PatientID, str(got.PatientName)) == ("C-91", "Salem^Ali=علي سالم")
    assert got.PixelData == old.PixelData
    assert archive.original(uid, series, first) == files[0]

    # Attributes
    decide(archive, uid, type="correct", attributes={"StudyDescription": "CT neck", "StudyDate": "20230303"})
    wait_until(lambda: listed(archive, "StudyDate=20230303&StudyDescription=CT%20neck") == [uid], 20, "corrected")

    # An instance that comes again with other content is a conflict; two calls resolve it
    assert archive.stow([changed(files[0], ImageComments="second")]).status_code == 200

    def conflict() -> Any:
        found = archive.json("/conflicts?state=open")["conflicts"]
        return next((c for c in found if c["sop_uid"] == first), None)

    found = wait_until(conflict, 90, "the conflict is listed")
    assert archive.original(uid, series, first) == files[0]
    decide(
        archive,
        uid,
        type="resolve",
        sop_uid=first,
        serve=found["second_sha256"],
        second_offset=found["second_offset"],
    )
    wait_until(lambda: conflict() is None, 20, "the conflict is resolved")
    wait_until(lambda: archive.original(uid, series, first) != files[0], 10, "the other copy is served")
    assert archive.instance_count(uid) == 4

    # Rejected and restored by a person
    rejection = decide(archive, uid, type="reject", code="113037")
    wait_until(lambda: listed(archive, "PatientID=C-91") == [], 20, "hidden from searches")
    wait_until(lambda: archive.get(path, "application/dicom").status_code == 404, 10, "hidden from retrieves")
    months = archive.json("/corrections?type=study.rejected")["corrections"]
    assert rejection in [c["correction_id"] for c in months]
    decide(archive, uid, type="restore", rejection=rejection)
    wait_until(lambda: archive.instance_count(uid) == 4, 20, "restored")

    # Rejected by a note of a workstation
    document = note("1.2.826.0.1.3680043.9.91", "113038", [i.sop for i in study[1:3]], study=uid, inside=uid)
    assert archive.stow([document]).status_code == 200
    wait_until(lambda: archive.instance_count(uid) == 2, 30, "the note hides two instances, and itself")
    assert sorted(archive.instance_uids(uid)) == sorted([first, study[3].sop])
    assert archive.original(uid, series, study[1].sop) == files[1]
    told = archive.json(f"/studies/{uid}/corrections")["corrections"]
    assert [c["type"].rpartition(".")[2] for c in told] == [
        "reassigned", "corrected", "conflict-resolved", "rejected", "restored", "rejected",
    ]  # fmt: skip
    # Sent again, what was wrong stays hidden
    assert archive.stow([files[1]]).status_code == 200
    wait_until(archive.drained, 20, "stored")
    assert archive.instance_count(uid) == 2
    decide(archive, uid, type="restore")
    wait_until(lambda: archive.instance_count(uid) == 5, 20, "all is there, the note too")
