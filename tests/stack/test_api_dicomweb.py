"""The query API on the real servers, asked by dicomweb-client, which is nobody of ours."""

from __future__ import annotations

import hashlib
import io
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from PIL import Image

from tests.archive import Archive, dcmtk, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack
from tests.unit.consumers.archive import part10, sample
from tests.unit.consumers.multipart import parts_of

pytestmark = [pytest.mark.connected, pytest.mark.filterwarnings("ignore")]

STUDY = "1.2.826.0.1.3680043.10.77.1"
SYNTAXES = ("MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "JPEG-LL.dcm")


def of_its_own(data: bytes, n: int) -> bytes:
    """The file with another digit at the end of its SOP Instance UID: some of pydicom's files share theirs."""
    uid = str(pydicom.dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"]).SOPInstanceUID).encode()
    return data.replace(uid, uid[:-1] + str(n).encode())


class Sent:
    """What the module's archive was given."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        (self.ct,) = make_ct(folder, studies=1, slices=20, seed=91, rows=128)
        names = {"Hassan^Mona=منى حسن": "P-1", "أحمد^محمد": "P-2", "Harrison^Amr": "P-3"}
        self.named = [
            part10(
                f"{STUDY}.{n}.1.1",
                study=f"{STUDY}.{n}",
                series=f"{STUDY}.{n}.1",
                PatientName=name,
                PatientID=f"{STUDY}-{pid}",
                AccessionNumber=f"ACC-{pid}",
                StudyDate=f"2024010{n}",
                frames=3,
            )
            for n, (name, pid) in enumerate(names.items(), 1)
        ]
        self.odd = {name: of_its_own(sample(name), n) for n, name in enumerate(SYNTAXES)}
        for files in ([i.path.read_bytes() for i in self.ct], *([d] for d in (*self.named, *self.odd.values()))):
            assert archive.stow(files).status_code == 200
        self.studies = {self.ct[0].study: 20} | {self.uid(d): 1 for d in (*self.named, *self.odd.values())}
        for uid, count in self.studies.items():
            wait_until(partial(self.found, archive, uid, count), 60, "what was sent is queryable")

    @staticmethod
    def found(archive: Archive, uid: str, count: int) -> bool:
        return archive.instance_count(uid) >= count

    @staticmethod
    def uid(data: bytes) -> str:
        return str(pydicom.dcmread(io.BytesIO(data), specific_tags=["StudyInstanceUID"]).StudyInstanceUID)

    @staticmethod
    def path(data: bytes) -> str:
        ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        return f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


@pytest.fixture(scope="module")
def sent(whole: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    return Sent(Archive(whole.settings("operator")), tmp_path_factory.mktemp("api"))


@pytest.fixture
def client(archive: Archive) -> DICOMwebClient:
    return DICOMwebClient(f"{archive.base}/dicom-web")


def uids(rows: list[dict[str, Any]], tag: str = "0020000D") -> set[str]:
    return {row[tag]["Value"][0] for row in rows}


# ------------------------------------------------------------------------------------------------ searches


@pytest.mark.client("dicomweb-client", feature="QIDO-RS")
def test_studies_by_key(client: DICOMwebClient, sent: Sent) -> None:
    uid = sent.ct[0].study
    assert uids(client.search_for_studies(search_filters={"StudyInstanceUID": uid})) == {uid}
    assert uids(client.search_for_studies(search_filters={"PatientID": f"{STUDY}-P-2"})) == {f"{STUDY}.2"}
    assert uids(client.search_for_studies(search_filters={"AccessionNumber": "ACC-P-3"})) == {f"{STUDY}.3"}
    assert client.search_for_studies(search_filters={"PatientID": "NOBODY"}) == []


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("Har*", {3}),
        ("ha*", {1, 3}),
        ("*mona*", {1}),
        ("احمد*", {2}),
        ("أحمد^محمد", {2}),
        ("منى*", {1}),
        ("H?ss*", {1}),
    ],
)
def test_studies_by_name(client: DICOMwebClient, sent: Sent, pattern: str, numbers: set[int]) -> None:
    filters = {"PatientName": pattern, "StudyDate": "20240101-20240103"}
    assert uids(client.search_for_studies(search_filters=filters)) == {f"{STUDY}.{n}" for n in numbers}


@pytest.mark.client("dicomweb-client", feature="QIDO-RS")
def test_studies_by_date_modality_and_page(client: DICOMwebClient, sent: Sent) -> None:
    filters = {"StudyDate": "20240101-20240103", "ModalitiesInStudy": "CT"}
    whole = client.search_for_studies(search_filters=filters)
    assert uids(whole) >= {f"{STUDY}.{n}" for n in (1, 2, 3)}
    pages = [client.search_for_studies(search_filters=filters, limit=1, offset=n) for n in range(len(whole))]
    assert [uids(p) for p in pages] == [uids([r]) for r in whole]


@pytest.mark.client("dicomweb-client", feature="QIDO-RS")
def test_every_study_is_listed(client: DICOMwebClient, archive: Archive, sent: Sent) -> None:
    found: list[dict[str, Any]] = []
    while page := client.search_for_studies(limit=7, offset=len(found)):
        found += page
    assert len(uids(found)) == len(found)
    assert uids(found) >= set(sent.studies)


@pytest.mark.client("dicomweb-client", feature="QIDO-RS")
def test_series_and_instances(client: DICOMwebClient, sent: Sent) -> None:
    uid, series = sent.ct[0].study, sent.ct[0].series
    assert uids(client.search_for_series(uid), "0020000E") == {i.series for i in sent.ct}
    expected = {i.sop for i in sent.ct if i.series == series}
    assert uids(client.search_for_instances(uid, series), "00080018") == expected
    filters = {"SOPInstanceUID": sent.ct[0].sop}
    assert uids(client.search_for_instances(uid, search_filters=filters), "00080018") == {sent.ct[0].sop}


# ------------------------------------------------------------------------------------------------ retrieves


@pytest.mark.client("dicomweb-client", feature="WADO-RS instances")
def test_a_study_a_series_an_instance(client: DICOMwebClient, sent: Sent) -> None:
    one = sent.ct[0]
    expected = {i.sop: i.path.read_bytes() for i in sent.ct}
    found = client.retrieve_study(one.study)
    assert {str(d.SOPInstanceUID) for d in found} == set(expected)
    for ds in client.retrieve_series(one.study, one.series):
        assert ds.PixelData == pydicom.dcmread(io.BytesIO(expected[str(ds.SOPInstanceUID)])).PixelData
    instance = client.retrieve_instance(one.study, one.series, one.sop)
    assert str(instance.SOPInstanceUID) == one.sop


@pytest.mark.client("dicomweb-client", feature="WADO-RS metadata")
def test_metadata(client: DICOMwebClient, sent: Sent) -> None:
    one = sent.ct[0]
    assert uids(client.retrieve_study_metadata(one.study), "00080018") == {i.sop for i in sent.ct}
    (found,) = [client.retrieve_instance_metadata(one.study, one.series, one.sop)]
    assert found["00280010"]["Value"] == [128]


@pytest.mark.client("dicomweb-client", feature="WADO-RS frames")
def test_frames(client: DICOMwebClient, sent: Sent) -> None:
    data = sent.named[0]
    ds = pydicom.dcmread(io.BytesIO(data))
    frames = client.retrieve_instance_frames(
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, frame_numbers=[3, 1]
    )
    assert frames == [ds.PixelData[64:96], ds.PixelData[:32]]


@pytest.mark.client("dicomweb-client", feature="WADO-RS rendered")
def test_rendered(client: DICOMwebClient, sent: Sent) -> None:
    one = sent.ct[0]
    stored = pydicom.dcmread(one.path)
    png = client.retrieve_instance_rendered(
        one.study, one.series, one.sop, media_types=("image/png",), params={"window": "0,4096,linear-exact"}
    )
    shown = np.asarray(Image.open(io.BytesIO(png)))
    expected = np.clip((stored.pixel_array - 1024.0) / 4096 + 0.5, 0, 1) * 255
    assert np.abs(shown - expected).max() <= 0.51
    jpeg = client.retrieve_instance_frames_rendered(one.study, one.series, one.sop, [1], media_types=("image/jpeg",))
    assert np.asarray(Image.open(io.BytesIO(jpeg))).shape == shown.shape


@pytest.mark.client("dicomweb-client", feature="WADO-RS bulk data")
def test_bulk_data_of_the_metadata(client: DICOMwebClient, sent: Sent) -> None:
    one = sent.ct[0]
    (found,) = [client.retrieve_instance_metadata(one.study, one.series, one.sop)]
    (value,) = client.retrieve_bulkdata(found["7FE00010"]["BulkDataURI"])
    assert value == pydicom.dcmread(one.path).PixelData
    ranged = httpx.get(
        found["7FE00010"]["BulkDataURI"], headers={"Accept": "application/octet-stream", "Range": "bytes=10-19"}
    )
    assert (ranged.status_code, ranged.content) == (206, value[10:20])


@pytest.mark.parametrize("name", SYNTAXES)
def test_transfer_syntaxes(archive: Archive, sent: Sent, name: str) -> None:
    data = sent.odd[name]
    path = sent.path(data)
    stored = pydicom.dcmread(io.BytesIO(data))
    (part,) = parts_of(archive.get(path, 'multipart/related; type="application/dicom"'))
    decoded = pydicom.dcmread(io.BytesIO(part.body))
    assert str(decoded.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.1"
    if "PixelData" in stored:
        assert np.array_equal(decoded.pixel_array, stored.pixel_array)
    assert hashlib.sha256(archive.get(f"{path}/original", "application/dicom").content).digest() == (
        hashlib.sha256(data).digest()
    )


@pytest.mark.client("dcmtk dcmdump", feature="WADO-RS instances")
def test_dcmtk_reads_what_leaves(archive: Archive, sent: Sent, tmp_path: Path) -> None:
    for name, data in sent.odd.items():
        body = archive.get(sent.path(data), "application/dicom").content
        (tmp_path / name).write_bytes(body)
        done = subprocess.run(
            [dcmtk("dcmdump"), "-q", str(tmp_path / name)], capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, name


# ------------------------------------------------------------------------------------------------ freshness, tiers


def test_an_answer_says_how_fresh_it_is(archive: Archive, sent: Sent) -> None:
    def fresh() -> bool:
        return archive.get("/dicom-web/studies?limit=1").headers["Sijil-Projection-Lag"].startswith("events=0;")

    wait_until(fresh, 20, "the read models have caught up")
