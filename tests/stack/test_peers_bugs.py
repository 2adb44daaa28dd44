"""What went wrong in other archives, each as a test of the whole way.

dcm4chee-arc 4990 (two first studies at nearly the same moment made two patients), Google adapter 153 (a path made of
the SOP Instance UID alone collided), Orthanc with PostgreSQL (200 with 28 of 50 instances stored under two clients; a
crash on a sequence nested 60 deep), and a study that comes through two gateways at once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.stack.test_gateway_kinds import KINDS
from tests.unit.consumers.archive import part10

pytestmark = [pytest.mark.connected]


def test_a_study_through_two_gateways_at_once(archive: Archive, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path, studies=1, slices=30, seed=95, rows=32)
    uid, files = study[0].study, [i.path.read_bytes() for i in study]
    with ThreadPoolExecutor(3) as threads:
        # Ten instances come by both doors.
        dimse = threads.submit(archive.storescu, [i.path for i in study[:20]])
        stow = [threads.submit(archive.stow, files[at : at + 10]) for at in (10, 20)]
        assert dimse.result().returncode == 0, dimse.result().stderr
        assert [s.result().status_code for s in stow] == [200, 200]
    wait_until(archive.drained, 30, "all packs are stored")
    wait_until(lambda: archive.instance_count(uid) == 30, 30, "one study of thirty instances")
    assert sorted(archive.instance_uids(uid)) == sorted(i.sop for i in study)
    told = archive.json(f"/studies/{uid}")
    assert {p["door"] for p in told["stored_in"]} == {"dimse", "stow"}


def test_two_first_studies_of_a_patient_at_once_are_one_patients(archive: Archive) -> None:
    studies = [f"1.2.826.0.1.3680043.9.96.{n}" for n in range(6)]
    files = [part10(f"{s}.1.1", study=s, series=f"{s}.1", PatientID="TWIN-96") for s in studies]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda f: archive.stow([f]).status_code, files))
    assert answers == [200] * 6
    for uid in studies:
        wait_until(lambda uid=uid: archive.instance_count(uid) == 1, 30, "queryable")  # type: ignore[misc]
    (key,) = {archive.json(f"/studies/{uid}")["patient_key"] for uid in studies}
    listed = archive.json(f"/patients/{key}/studies")["studies"]
    assert sorted(s["study_uid"] for s in listed) == sorted(studies)


def test_what_is_acknowledged_is_all_there(archive: Archive, tmp_path: Path) -> None:
    studies = make_ct(tmp_path, studies=2, slices=50, seed=97, rows=16)
    bodies = [[i.path.read_bytes() for i in s] for s in studies]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(archive.stow, bodies))
    assert [a.status_code for a in answers] == [200, 200]
    for study in studies:
        uid = study[0].study
        wait_until(lambda uid=uid: archive.instance_count(uid) == 50, 30, "all fifty")  # type: ignore[misc]
        assert sorted(archive.instance_uids(uid)) == sorted(i.sop for i in study)


def test_one_sop_instance_uid_in_two_studies(archive: Archive) -> None:
    sop, uids = "1.2.826.0.1.3680043.9.98.7", [f"1.2.826.0.1.3680043.9.98.{n}" for n in (1, 2)]
    files = {u: part10(sop, study=u, series=f"{u}.1", StudyDescription=f"of {u}") for u in uids}
    assert archive.stow(list(files.values())).status_code == 200
    for uid in uids:
        wait_until(lambda uid=uid: archive.instance_count(uid) == 1, 30, "queryable")  # type: ignore[misc]
        assert archive.original(uid, f"{uid}.1", sop) == files[uid]


def test_a_sequence_nested_60_deep_goes_all_the_way(archive: Archive) -> None:
    names = ["sequences 60 deep", "sequences 60 deep, implicit"]
    assert archive.stow([KINDS[n] for n in names]).status_code == 200
    for name in names:
        ds = pydicom.dcmread(BytesIO(KINDS[name]))
        uid, series, sop = ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID
        path = f"/dicom-web/studies/{uid}/series/{series}/instances/{sop}"
        wait_until(lambda path=path: archive.get(path + "/original", "*/*").status_code == 200, 30, "there")  # type: ignore[misc]
        assert archive.original(uid, series, sop) == KINDS[name]
        (header,) = archive.json(path + "/metadata")
        assert "0040A730" in header
        got = pydicom.dcmread(BytesIO(archive.get(path, "application/dicom").content))
        assert got.ContentSequence == ds.ContentSequence
