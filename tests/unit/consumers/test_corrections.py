"""What people decide shows in everything that leaves, and what is stored stays as it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from io import BytesIO
from typing import Any
from uuid import UUID

import pydicom
import pytest

from producers.correction_request import correction, event, parse
from schemas.corrections import Document, encode
from schemas.events import Event
from schemas.tables import Upsert
from streams.apply import Projector
from streams.facts import Fact
from streams.material import Material
from tests.unit.consumers.archive import SECRETS, T0, MemoryArchive, part10, sample

STUDY, SERIES = "1.2.3", "1.2.3.1"


class Corrected(MemoryArchive):
    """An archive in memory that takes corrections."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._projector = Projector(
            self.tables, Material(self.objects, documents="sijil-documents", missing_s=0.1), SECRETS
        )

    def decide(self, study: str = STUDY, **asked: Any) -> str:
        """As `POST /studies/{study}/corrections` and the worker behind it; the id."""
        self._number += 1
        id = str(UUID(int=self._number))
        found = parse(json.dumps({"id": id, **asked}).encode())
        document = Document(
            id=id,
            study_uid=study,
            number=self._number,
            actor="http:192.0.2.1",
            recorded="2025-03-01T09:00:00Z",
            reason=found.reason,
            correction=correction(found),
        )
        data, key = encode(document), f"corrections/{study}/{self._number:06}.json"
        digest = hashlib.sha256(data).hexdigest()
        self.objects.put("sijil-documents", key, data, sha256=digest)
        self.apply(event(document, "sijil-documents", key, len(data), digest))
        return id

    def apply(self, *events: Event) -> None:
        """The worker's projection of events of study.corrections."""
        facts = [Fact("sijil.study.corrections", 0, self._next(), T0, f"e{n}", e) for n, e in enumerate(events)]
        applied = asyncio.run(self._projector.apply(facts))
        assert [e.reason for _, e in applied.failed] == []

    def _next(self) -> int:
        self._offset += 1
        return self._offset

    def found(self, query: str, level: str = "studies") -> list[str]:
        """UIDs of the lowest level of a search."""
        tag = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}[level.rpartition("/")[2]]
        return [d[tag]["Value"][0] for d in self.get(f"/dicom-web/{level}{query}").json()]

    def metadata(self, path: str = f"/dicom-web/studies/{STUDY}") -> list[dict[str, Any]]:
        answer = self.get(path + "/metadata")
        found: list[dict[str, Any]] = answer.json() if answer.status_code == 200 else []
        return found


@pytest.fixture
def archive() -> Corrected:
    it = Corrected()
    it.store([part10("1.1", InstanceNumber=1), part10("1.2", InstanceNumber=2)])
    it.store([part10("1.3", series="1.2.3.2", Modality="PT", SeriesDescription="pet")])
    it.store([part10("9.1", study="9.9", series="9.9.1", PatientName="Other^One", PatientID="Q-1")])
    return it


def test_reassigned_to_another_patient(archive: Corrected) -> None:
    before = archive.get(f"/studies/{STUDY}").json()["patient_key"]
    archive.decide(
        type="reassign",
        patient={
            "PatientID": "N-5",
            "PatientName": "Salem^Ali=علي سالم",
            "PatientSex": "M",
            "PatientBirthDate": "19700101",
        },
    )
    assert archive.found("?PatientID=N-5") == [STUDY]
    assert archive.found("?PatientID=P-77") == []
    assert archive.found("?PatientName=Salem*") == [STUDY]
    assert archive.found("?PatientName=علي*") == [STUDY]
    assert archive.found("?PatientName=Hassan*") == []
    assert archive.found("?PatientName=*assa*") == []
    assert archive.found("?StudyDate=20250228&PatientID=N-5") == [STUDY]
    assert archive.found(f"?StudyInstanceUID={STUDY}&PatientID=P-77") == []
    assert sorted(archive.found("")) == sorted([STUDY, "9.9"])
    after = archive.get(f"/studies/{STUDY}").json()["patient_key"]
    assert after != before
    assert [s["study_uid"] for s in archive.get(f"/patients/{after}/studies").json()["studies"]] == [STUDY]
    assert archive.get(f"/patients/{before}/studies").json()["studies"] == []
    person = archive.get(f"/patients/{after}").json()
    assert (person["patient_id"], person["sex"], person["basis"]) == ("N-5", "M", "reassigned")
    for header in archive.metadata():
        assert header["00100020"]["Value"] == ["N-5"]
        assert header["00100010"]["Value"] == [{"Alphabetic": "Salem^Ali", "Ideographic": "علي سالم"}]
        assert "Value" not in header["00100021"]
    # And of yet another one
    archive.decide(type="reassign", patient={"PatientID": "N-6"})
    assert archive.found("?PatientID=N-5") == []
    assert archive.found("?PatientID=N-6") == [STUDY]


def test_attributes_are_corrected_at_their_levels(archive: Corrected) -> None:
    archive.decide(
        type="correct",
        attributes={"StudyDescription": "CT neck", "StudyDate": "20240110", "AccessionNumber": "A-9"},
    )
    archive.decide(type="correct", series_uid=SERIES, attributes={"Laterality": "L", "SeriesDescription": "coronal"})
    archive.decide(type="correct", series_uid=SERIES, sop_uid="1.2", attributes={"InstanceNumber": "7"})
    assert archive.found("?StudyDate=20240110") == [STUDY]
    assert archive.found("?StudyDate=20250228") == ["9.9"]
    assert archive.found("?StudyDate=20230101-20241231") == [STUDY]
    assert archive.found("?StudyDate=20250101-") == ["9.9"]
    assert archive.found("") == ["9.9", STUDY]
    assert archive.found("?offset=1") == [STUDY]
    assert archive.found("?AccessionNumber=A-9") == [STUDY]
    assert STUDY not in archive.found("?AccessionNumber=A-1")
    assert archive.found("?StudyDescription=CT%20neck") == [STUDY]
    assert archive.found("?Laterality=L", "series") == [SERIES]
    assert archive.found("?SeriesDescription=coronal", f"studies/{STUDY}/series") == [SERIES]
    assert archive.found("?InstanceNumber=7", f"studies/{STUDY}/instances") == ["1.2"]
    headers = {h["00080018"]["Value"][0]: h for h in archive.metadata()}
    assert [headers[s]["00081030"]["Value"] for s in ("1.1", "1.2", "1.3")] == [["CT neck"]] * 3
    assert headers["1.1"]["0008103E"]["Value"] == ["coronal"]
    assert headers["1.3"]["0008103E"]["Value"] == ["pet"]
    assert [headers[s]["00200013"]["Value"] for s in ("1.1", "1.2")] == [[1], [7]]
    assert list(headers["1.1"]) == sorted(headers["1.1"])


def test_a_patients_key_follows_what_identifies(archive: Corrected) -> None:
    before = archive.get(f"/studies/{STUDY}").json()["patient_key"]
    archive.decide(type="correct", attributes={"PatientName": "Hassan^Muna"})
    assert archive.get(f"/studies/{STUDY}").json()["patient_key"] == before
    archive.decide(type="correct", attributes={"PatientID": "P-78"})
    assert archive.get(f"/studies/{STUDY}").json()["patient_key"] != before


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_a_study_is_rejected_and_restored(archive: Corrected, code: str) -> None:
    rejection = archive.decide(type="reject", code=code)
    assert archive.found("") == ["9.9"]
    assert archive.found("?PatientID=P-77") == []
    for path in ("", "/metadata", f"/series/{SERIES}", f"/series/{SERIES}/instances/1.1", "/series"):
        answer = archive.get(f"/dicom-web/studies/{STUDY}{path}")
        assert answer.status_code == 404 or answer.json() == [], path
    assert archive.get(f"/studies/{STUDY}").status_code == 404
    assert archive.get(f"/dicom-web/studies/{STUDY}/original").status_code == 200
    (listed,) = archive.get("/corrections?month=202503&type=study.rejected").json()["corrections"]
    assert (listed["study_uid"], listed["code"], listed["scope"]) == (STUDY, code, "study")
    archive.decide(type="restore", rejection=rejection)
    assert sorted(archive.found("")) == sorted([STUDY, "9.9"])
    assert len(archive.metadata()) == 3


def test_counts_are_of_what_is_seen(archive: Corrected) -> None:
    archive.decide(type="reject", code="113001", series_uid=SERIES, sop_uids=["1.2"])
    (study,) = archive.get(f"/dicom-web/studies?StudyInstanceUID={STUDY}").json()
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [2])
    assert archive.found("", f"studies/{STUDY}/instances") == ["1.1", "1.3"]
    (first, _) = archive.get(f"/dicom-web/studies/{STUDY}/series").json()
    assert first["00201209"]["Value"] == [1]
    archive.decide(type="reject", code="113038", series_uid="1.2.3.2")
    (study,) = archive.get(f"/dicom-web/studies?StudyInstanceUID={STUDY}").json()
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([1], [1])
    assert study["00080061"]["Value"] == ["CT"]
    assert archive.found("", f"studies/{STUDY}/series") == [SERIES]
    assert [h["00080018"]["Value"][0] for h in archive.metadata()] == ["1.1"]
    assert archive.get(f"/studies/{STUDY}").json()["instances"] == 1
    archive.decide(type="restore")
    assert len(archive.metadata()) == 3


def test_a_copy_is_chosen(archive: Corrected) -> None:
    archive.store([part10("1.1", InstanceNumber=1, StudyDescription="other", pixels=b"\7" * 32)])
    path = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/1.1"
    first = archive.get(path + "/original").content
    rows = asyncio.run(archive.tables.select(_copies()))
    second = rows[1]
    archive.decide(type="resolve", sop_uid="1.1", serve=second["sha256"], second_offset=second["record_offset"])
    assert archive.get(path + "/original").content != first
    (header,) = archive.metadata(path)
    assert header["00081030"]["Value"] == ["other"]
    assert archive.get(f"/studies/{STUDY}").json()["instances"] == 3
    archive.decide(type="resolve", sop_uid="1.1", serve=rows[0]["sha256"], second_offset=second["record_offset"])
    assert archive.get(path + "/original").content == first


def _copies() -> Any:
    from infra.ports import Select

    return Select("instances", {"study_uid": STUDY, "series_uid": SERIES, "sop_uid": "1.1"})


def test_what_was_decided_is_told(archive: Corrected) -> None:
    assert archive.get(f"/studies/{STUDY}/corrections").json()["corrections"] == []
    archive.decide(type="correct", attributes={"StudyDescription": "CT neck"}, comment="CANARY")
    archive.decide(type="reject", code="113001", sop_uids=["1.1"])
    answer = archive.get(f"/studies/{STUDY}/corrections")
    assert answer.headers["etag"] == 'W/"2"'
    first, second = answer.json()["corrections"]
    assert (first["number"], first["attributes"]) == (1, {"StudyDescription": "CT neck"})
    assert (second["code"], second["meaning"]) == ("113001", "Rejected for Quality Reasons")
    assert second["sop_uids"] == ["1.1"]


@pytest.mark.parametrize(
    ("name", "accept"),
    [
        ("CT_small.dcm", "application/dicom"),
        ("MR_small_implicit.dcm", "application/dicom"),
        ("MR_small_bigendian.dcm", "application/dicom"),
        ("image_dfl.dcm", "application/dicom; transfer-syntax=*"),
        ("JPEG2000.dcm", "application/dicom; transfer-syntax=*"),
        ("JPEG2000.dcm", "application/dicom"),
        ("MR_small_RLE.dcm", "application/dicom"),
        ("SC_rgb_jpeg_dcmtk.dcm", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50"),
    ],
)
def test_retrieved_instances_have_corrected_headers(name: str, accept: str) -> None:
    archive = Corrected()
    data = sample(name)
    archive.store([data])
    old = pydicom.dcmread(BytesIO(data))
    path = f"/dicom-web/studies/{old.StudyInstanceUID}/series/{old.SeriesInstanceUID}/instances/{old.SOPInstanceUID}"
    first = archive.get(path, Accept=accept)
    before = pydicom.dcmread(BytesIO(first.content))
    archive.decide(
        str(old.StudyInstanceUID),
        type="reassign",
        patient={"PatientID": "N-5", "PatientName": "Salem^Ali=علي سالم", "PatientBirthDate": "19700101"},
    )
    archive.decide(str(old.StudyInstanceUID), type="correct", attributes={"StudyDescription": "CT"})
    answer = archive.get(path, Accept=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] != first.headers["etag"]
    after = pydicom.dcmread(BytesIO(answer.content))
    assert (after.PatientID, str(after.PatientName), after.PatientBirthDate) == (
        "N-5",
        "Salem^Ali=علي سالم",
        "19700101",
    )
    assert (after.StudyDescription, after.PatientSex) == ("CT", "")
    # A deflated dataset is inflated to be corrected.
    assert after.file_meta == before.file_meta or name == "image_dfl.dcm"
    assert after.PixelData == before.PixelData
    assert after.SOPInstanceUID == before.SOPInstanceUID
    study = archive.get(path.partition("/series/")[0], Accept='multipart/related; type="application/dicom"')
    assert study.status_code == 200 or accept != "application/dicom"
    assert archive.get(path + "/original").content == data


def test_an_open_door_notices(archive: Corrected) -> None:
    """What is remembered of a study is forgotten as soon as the projection has applied a correction."""
    path = f"/dicom-web/studies/{STUDY}/metadata"

    async def ask() -> list[str]:
        seen = []
        async with archive.client() as client:
            seen.append((await client.get(path)).json()[0]["00100020"]["Value"][0])
            await asyncio.sleep(1.2)  # the door has looked once at how far the projections are
            await asyncio.to_thread(archive.decide, type="reassign", patient={"PatientID": "N-5"})
            key = {"projection": "views", "topic": "sijil.study.corrections", "partition": 0}
            await archive.tables.apply([Upsert("projection_positions", key, {"next_offset": 99, "log_time": T0}, 99)])
            for _ in range(50):
                seen.append((await client.get(path)).json()[0]["00100020"]["Value"][0])
                if seen[-1] == "N-5":
                    break
                await asyncio.sleep(0.1)
        return seen

    seen = asyncio.run(ask())
    assert (seen[0], seen[-1]) == ("P-77", "N-5")


def test_a_late_pack_is_of_the_corrected_study(archive: Corrected) -> None:
    archive.decide(type="reassign", patient={"PatientID": "N-5"})
    archive.decide(type="reject", code="113001", sop_uids=["1.1"])
    archive.store([part10("1.4", series="1.2.3.2")])
    assert archive.found("?PatientID=N-5") == [STUDY]
    assert archive.found("?PatientID=P-77") == []
    (study,) = archive.get("/dicom-web/studies?PatientID=N-5").json()
    assert study["00201208"]["Value"] == [3]
    assert {h["00100020"]["Value"][0] for h in archive.metadata()} == {"N-5"}
