"""Patient data planted at every door of the whole archive: none of it in logs, figures, topics and dead letters.

`tests/conftest.py` looks again when the session ends, for whatever its tests have planted since.
"""

from __future__ import annotations

import json
import time
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE

from tests import canary
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.canary import ARABIC, PLANTED
from tests.local_stack import LocalStack
from tests.unit.producers.test_report_document import document

pytestmark = pytest.mark.connected

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def planted(path: Path) -> bytes:
    """A file whose every text about a person is a canary."""
    ds = pydicom.dcmread(path)
    ds.PatientName = f"{PLANTED}^A={ARABIC}"
    ds.PatientID = ds.AccessionNumber = ds.StudyID = PLANTED[:16]
    ds.ReferringPhysicianName = ds.OperatorsName = f"{PLANTED}^Doctor"
    ds.StudyDescription = ds.PatientComments = ds.InstitutionName = PLANTED
    out = BytesIO()
    ds.save_as(out)
    return out.getvalue()


def test_planted_at_every_door_and_found_nowhere(archive: Archive, whole: LocalStack, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path, studies=1, slices=2, seed=time.time_ns() // 1000 % 10**9, rows=32)
    uid, files = study[0].study, [planted(i.path) for i in study]
    # Bytes: right ones, the same again with other content, cut ones, none at all; a name in the address.
    assert archive.stow([files[0]]).status_code == 200
    paths = [tmp_path / "own.dcm"]
    paths[0].write_bytes(files[1])
    assert archive.storescu(paths).returncode == 0
    archive.stow([files[0].replace(b"\0\0\1\0", b"\0\0\2\0", 1)[:-7], PLANTED.encode() * 200])
    archive.stow([files[0]], study=PLANTED)
    wait_until(lambda: archive.instance_count(uid) == 2, 60, "the study is queryable")
    # Papers: a report, broken ones, a correction.
    text = document().replace(b'"conclusion"', f'"conclusion-{PLANTED}": "", "conclusion"'.encode())
    for body in (document(), text, f'{{"{PLANTED}": '.encode()):
        archive_post(archive, "/reports", body)
    asked_for = {"id": PLANTED, "type": "correct", "reason": PLANTED, "attributes": {"PatientName": ARABIC}}
    archive_post(archive, f"/studies/{uid}/corrections", json.dumps(asked_for).encode(), "application/json")
    # Questions: searches, addresses, headers, a C-FIND.
    for query in (f"PatientName={PLANTED}*", f"PatientID={PLANTED}", f"AccessionNumber={PLANTED}", f"{PLANTED}=1"):
        archive.get(f"/dicom-web/studies?{query}")
    assert archive.json(f"/dicom-web/studies?PatientName=*{ARABIC}*"), "they are there to be found"
    for path in (f"/dicom-web/studies/{PLANTED}", f"/{PLANTED}", f"/patients/{PLANTED}", f"/login?back=/{PLANTED}"):
        archive.get(path, Authorization=f"Bearer {PLANTED}", Referer=f"http://x/{PLANTED}", **{"X-Request-Id": PLANTED})
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.PatientName, asked.PatientID = "STUDY", f"{PLANTED}*", PLANTED
    ae = AE("CANARYSCU")
    ae.add_requested_context(STUDY_ROOT_FIND)
    found = ae.associate(archive.settings.dicom_host, archive.settings.dicom_port, ae_title=archive.settings.ae_title)
    assert [status.Status for status, _ in found.send_c_find(asked, STUDY_ROOT_FIND)][-1] == 0
    found.release()
    wait_until(archive.drained, 30, "all is published")
    assert canary.leaks(whole) == []


def archive_post(archive: Archive, path: str, body: bytes, kind: str = "application/fhir+json") -> None:
    """Whatever the answer is."""
    httpx.post(archive.base + path, content=body, headers={"Content-Type": kind}, timeout=60)


def test_a_leak_is_found(archive: Archive, whole: LocalStack) -> None:
    log = whole.home / "logs" / "leak.log"
    log.write_text(f"patient {PLANTED}^A={ARABIC}\n", encoding="utf-8")
    try:
        assert canary.leaks(whole) == [f"log leak.log: {PLANTED}", f"log leak.log: {ARABIC}"]
    finally:
        log.unlink()
