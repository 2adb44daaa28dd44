"""A study on interchange media: a ZIP whose DICOMDIR others read."""

from __future__ import annotations

import asyncio
import gc
import io
import subprocess
import warnings
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest
from pydicom.fileset import FileSet

from consumers.api import queries
from consumers.api.media import Member, dicomdir, file_id, record_type
from consumers.api.packs import Packs
from consumers.api.retrieve import Retriever
from consumers.api.views import Views
from consumers.api.zipped import zipped
from tests.archive import dcmtk
from tests.unit.consumers.archive import DECODERS, FILES, MemoryArchive, part10, sample

DCIODVFY = Path("/usr/bin/dciodvfy")
BASE = "/dicom-web/studies/1.2.3"

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom warns of what its own files hold


@pytest.fixture(autouse=True)
def _directories_are_let_go() -> Iterator[None]:
    """pydicom's FileSet has a folder that it leaves to the garbage collector, which complains."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def unzipped(archive: MemoryArchive, path: str, folder: Path, accept: str = "application/zip") -> FileSet:
    answer = archive.get(path, accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text[:300]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.testzip() is None
        assert found.namelist()[-1] == "DICOMDIR"
        found.extractall(folder)
    return FileSet(pydicom.dcmread(folder / "DICOMDIR"))


def two_series() -> MemoryArchive:
    archive = MemoryArchive()
    archive.store([part10(f"1.2.3.1.{n}", InstanceNumber=n) for n in (1, 2, 3)])
    archive.store([part10("1.2.3.2.1", series="1.2.3.2", syntax="1.2.840.10008.1.2", SeriesNumber=2)])
    return archive


@pytest.mark.client("pydicom FileSet", feature="application/zip with DICOMDIR")
def test_others_read_the_directory_and_the_files(tmp_path: Path) -> None:
    found = unzipped(two_series(), BASE, tmp_path)
    assert [(str(i.SOPInstanceUID), i.path) for i in found] == [
        ("1.2.3.1.1", str(tmp_path / "DICOM/S0000001/I0000001")),
        ("1.2.3.1.2", str(tmp_path / "DICOM/S0000001/I0000002")),
        ("1.2.3.1.3", str(tmp_path / "DICOM/S0000001/I0000003")),
        ("1.2.3.2.1", str(tmp_path / "DICOM/S0000002/I0000001")),
    ]
    for instance in found:
        ds = instance.load()
        assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert ds.PatientName == "Hassan^Mona=منى حسن"
    assert {str(p) for p in found.find_values("PatientName")} == {"Hassan^Mona=منى حسن"}
    assert found.find_values("StudyDescription") == ["CT chest"]


@pytest.mark.client("dcmtk dcmdump", feature="application/zip with DICOMDIR")
def test_dcmtk_reads_the_directory(tmp_path: Path) -> None:
    unzipped(two_series(), BASE, tmp_path)
    said = subprocess.run(
        [dcmtk("dcmdump"), str(tmp_path / "DICOMDIR")], capture_output=True, text=True, check=False, timeout=30
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.count("[IMAGE]") == 4


@pytest.mark.client("dicom3tools dciodvfy", feature="application/zip with DICOMDIR")
@pytest.mark.skipif(not DCIODVFY.exists(), reason="no dciodvfy: make tools installs it")
def test_dicom3tools_finds_no_fault_in_the_directory(tmp_path: Path) -> None:
    unzipped(two_series(), BASE, tmp_path)
    said = subprocess.run([DCIODVFY, tmp_path / "DICOMDIR"], capture_output=True, text=True, check=False, timeout=30)
    assert said.stderr.splitlines() == ["BasicDirectory"]


def test_a_series_alone_and_bytes_that_are_the_same_each_time(tmp_path: Path) -> None:
    archive = two_series()
    found = unzipped(archive, f"{BASE}/series/1.2.3.1", tmp_path)
    assert len(list(found)) == 3
    first, second = (archive.get(BASE, accept="application/zip") for _ in range(2))
    assert first.content == second.content
    same = archive.get(BASE, accept="application/zip", **{"If-None-Match": first.headers["etag"]})
    assert same.status_code == 304


def test_it_is_sent_while_it_is_read() -> None:
    """Of what follows, nothing is read before it is its turn, so nothing of it is in memory."""
    archive = MemoryArchive()
    archive.store([part10(f"1.2.3.1.{n}", rows=256, columns=1024, pixels=bytes(1 << 19)) for n in range(1, 9)])
    read: list[int] = []
    stream = archive.objects.stream

    def counted(bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> AsyncIterator[bytes]:
        read.append(length)
        return stream(bucket, key, offset, length, version_id=version_id)

    archive.objects.stream = counted  # type: ignore[method-assign]

    async def run() -> list[int]:
        views = Views(lambda: archive.tables)
        await views.look()
        packs = Packs(views, archive.objects)
        retriever = Retriever(packs, DECODERS)
        rows = await archive.tables.select(queries.copies("1.2.3"))
        begun: list[int] = []
        async with aclosing(zipped(retriever, packs, retriever.media(rows, ("",)))) as pieces:
            async for _ in pieces:
                begun.append(len(read))
        return begun

    begun = asyncio.run(run())
    assert begun[0] == 1, "the first file alone"
    assert max(b - a for a, b in pairwise(begun)) == 1
    assert begun[-1] == 8


def test_what_no_decoder_takes_goes_as_it_is_stored(tmp_path: Path) -> None:
    data = sample("JPGExtended.dcm")
    ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    archive = MemoryArchive()
    archive.store([data])
    found = unzipped(
        archive, f"/dicom-web/studies/{ds.StudyInstanceUID}", tmp_path, "application/zip; transfer-syntax=*"
    )
    (instance,) = list(found)
    assert instance.load().file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID
    assert instance.ReferencedTransferSyntaxUIDInFile == ds.file_meta.TransferSyntaxUID


def test_every_kind_of_instance_has_a_record(tmp_path: Path) -> None:
    """pydicom finds each file again by the directory made of its header alone."""
    kinds: set[str] = set()
    for file in sorted(FILES.glob("*.dcm")):
        archive = MemoryArchive()
        try:
            archive.store([file.read_bytes()])
        except Exception:  # noqa: BLE001, S112 (files that the doors refuse)
            continue
        line = archive.manifests()[0].instances[0]
        member = Member(file_id(1, 1), line.sop_class, line.transfer_syntax, bytes(line.header))
        (tmp_path / "DICOM" / "S0000001").mkdir(parents=True, exist_ok=True)
        (tmp_path / "DICOM" / "S0000001" / "I0000001").write_bytes(file.read_bytes())
        (tmp_path / "DICOMDIR").write_bytes(dicomdir([member]))
        found = list(FileSet(pydicom.dcmread(tmp_path / "DICOMDIR")))
        assert [str(i.SOPInstanceUID) for i in found] == [line.sop_uid], file.name
        kinds.add(found[0].DirectoryRecordType)
    assert kinds >= {"IMAGE", "SR DOCUMENT", "RT PLAN", "RT DOSE", "RT STRUCTURE SET", "WAVEFORM"}


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "IMAGE"),
        ("1.2.840.10008.5.1.4.1.1.2.1", "IMAGE"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "SR DOCUMENT"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "KEY OBJECT DOC"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "ENCAP DOC"),
        ("1.2.840.10008.5.1.4.1.1.481.1", "IMAGE"),
        ("1.2.840.10008.5.1.4.1.1.481.5", "RT PLAN"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "WAVEFORM"),
        ("1.2.840.10008.5.1.4.1.1.66.4", "IMAGE"),
        ("1.2.276.0.7230010.3.1.0.1", "PRIVATE"),
    ],
)
def test_record_types(sop_class: str, kind: str) -> None:
    assert record_type(sop_class) == kind


def test_no_zip_of_one_instance_and_no_zip_by_accident() -> None:
    archive = two_series()
    assert archive.get(f"{BASE}/series/1.2.3.1/instances/1.2.3.1.1", accept="application/zip").status_code == 406
    assert archive.get(BASE).headers["content-type"].startswith("multipart/related")
