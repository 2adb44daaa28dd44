"""Every kind of instance that hospitals store, through both doors: kept byte for byte, readable, and with its header.

Small ones are made here for what no test set has; `test_gateway_corpus.py` has pydicom's files.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context

from producers.dicom.part10 import parse_file_meta
from producers.identify import Refused, identify_file
from schemas.pack import Sender
from tests.archive import dcmtk
from tests.stack.gateway_doors import Doors, open_doors
from tests.stack.test_gateway_corpus import REFUSED, corpus
from tests.stack.test_gateway_stow import body, post, stored

EXPLICIT, IMPLICIT, BIG, DEFLATED = ("1.2.840.10008.1.2" + s for s in (".1", "", ".2", ".1.99"))
STORAGE = "1.2.840.10008.5.1.4.1.1."
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    with open_doors(tmp_path / "home", monkeypatch) as both:
        yield both


def made(number: int, sop_class: str, syntax: str = EXPLICIT, **values: Any) -> bytes:
    """An instance of a class with what `values` has."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"1.2.826.0.1.3680043.9.7.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.9.7", f"1.2.826.0.1.3680043.9.7.{number}.1"
    ds.PatientID, ds.PatientName, ds.StudyDate = "K-1", "Kinds^All", "20250301"
    for keyword, value in values.items():
        if keyword == "private":
            block = ds.private_block(0x0029, "SIJIL TEST", create=True)
            block.add_new(0x01, "OB", value)
        elif keyword == "PixelData":
            ds.add_new("PixelData", "OB" if isinstance(value, bytes) and syntax not in (BIG, IMPLICIT) else "OW", value)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = UID(sop_class), ds.SOPInstanceUID
    if "PixelData" in ds and UID(syntax).is_encapsulated:
        ds["PixelData"].is_undefined_length = True
    out = BytesIO()
    explicit = {"implicit_vr": syntax == IMPLICIT, "little_endian": syntax != BIG}
    pydicom.dcmwrite(out, ds, enforce_file_format=True, **explicit)
    return out.getvalue()


def item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def code(value: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning="a meaning")


def image(frames: int = 1, bits: int = 8) -> dict[str, Any]:
    return {
        "Rows": 8, "Columns": 8, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0,
        "NumberOfFrames": frames,
    }  # fmt: skip


def deep(levels: int) -> Dataset:
    found = code("LAST")
    for _ in range(levels):
        found = item(ContentSequence=[found])
    return found


REFERENCE = item(ReferencedSOPClassUID=STORAGE + "2", ReferencedSOPInstanceUID="1.2.3")
FILM = bytes(range(256)) * 40
MADE_OF: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "encapsulated PDF": (
        (STORAGE + "104.1",),
        {"EncapsulatedDocument": b"%PDF-1.7 x\0", "MIMETypeOfEncapsulatedDocument": "application/pdf"},
    ),
    "structured report": (
        (STORAGE + "88.33",),
        {"ValueType": "CONTAINER", "ConceptNameCodeSequence": [code("121")], "ContentSequence": [deep(3)]},
    ),
    "presentation state": ((STORAGE + "11.1",), {"ReferencedSeriesSequence": [REFERENCE], "ContentLabel": "P"}),
    "key objects": ((STORAGE + "88.59",), {"CurrentRequestedProcedureEvidenceSequence": [REFERENCE]}),
    "segmentation": (
        (STORAGE + "66.4",),
        {**image(3, 1), "PixelData": bytes(24), "SegmentSequence": [code("1")]},
    ),
    "MPEG-4 video": (
        (STORAGE + "77.1.4.1", "1.2.840.10008.1.2.4.102"),
        {**image(90), "PixelData": encapsulate([FILM], has_bot=False)},
    ),
    "HEVC video": (
        (STORAGE + "77.1.1.1", "1.2.840.10008.1.2.4.107"),
        {**image(90), "PixelData": encapsulate([FILM], has_bot=False)},
    ),
    "fragmented video": (
        (STORAGE + "77.1.2.1", "1.2.840.10008.1.2.4.102.1"),
        {**image(90), "PixelData": encapsulate([FILM], fragments_per_frame=5, has_bot=False)},
    ),
    "RT plan": ((STORAGE + "481.5",), {"BeamSequence": [item(BeamNumber=1)], "RTPlanLabel": "A"}),
    "RT structure set": ((STORAGE + "481.3", IMPLICIT), {"ROIContourSequence": [item(ReferencedROINumber=1)]}),
    "RT dose": ((STORAGE + "481.2", IMPLICIT), {**image(2, 16), "PixelData": bytes(256), "DoseUnits": "GY"}),
    "waveform": (
        (STORAGE + "9.1.1",),
        {"WaveformSequence": [item(NumberOfWaveformChannels=1, WaveformBitsAllocated=16)]},
    ),
    "raw data": ((STORAGE + "66",), {"private": bytes(5000)}),
    "a private class": ((PRIVATE_CLASS,), {"private": b"anything"}),
    "deflated": ((STORAGE + "2", DEFLATED), {**image(1, 16), "PixelData": bytes(128)}),
    "big endian": ((STORAGE + "2", BIG), {**image(1, 16), "PixelData": bytes(range(128))}),
    "sequences 60 deep": ((STORAGE + "88.33",), {"ContentSequence": [deep(59)]}),
    "sequences 60 deep, implicit": ((STORAGE + "88.33", IMPLICIT), {"ContentSequence": [deep(59)]}),
}
KINDS = {n: made(at, *arguments, **values) for at, (n, (arguments, values)) in enumerate(MADE_OF.items(), 1)}


def test_by_stow(doors: Doors) -> None:
    answer = post(doors, body(*KINDS.values()))
    assert answer.status_code == 200, answer.text
    assert len(stored(answer)) == len(KINDS)
    doors.until(lambda: sorted(doors.files().values()) == sorted(KINDS.values()))
    lines = {i.sop_uid.rpartition(".")[2]: i for m in doors.manifests() for i in m.instances}
    headers = {name: json.loads(bytes(lines[str(n)].header)) for n, name in enumerate(KINDS, 1)}
    for name, header in headers.items():
        assert header["00100020"]["Value"] == ["K-1"], name
        assert lines[str([*KINDS].index(name) + 1)].marks == (), name
    at, depth = headers["sequences 60 deep"], 0
    while "0040A730" in at:
        at, depth = at["0040A730"]["Value"][0], depth + 1
    assert (depth, at["00080100"]["Value"]) == (60, ["LAST"])


def test_by_c_store(doors: Doors, tmp_path: Path) -> None:
    for n, data in enumerate(KINDS.values()):
        path = tmp_path / f"{n}.dcm"
        path.write_bytes(data)
        meta = parse_file_meta(data)
        ae = AE("KINDS")
        ae.requested_contexts = [build_context(UID(meta.sop_class_uid), meta.transfer_syntax)]
        assoc = ae.associate("127.0.0.1", doors.dicom_port, ae_title="SIJIL")
        assert assoc.send_c_store(path).Status == 0
        assoc.release()
    datasets = sorted(d[parse_file_meta(d).dataset_offset :] for d in KINDS.values())
    doors.until(lambda: sorted(f[parse_file_meta(f).dataset_offset :] for f in doors.files().values()) == datasets)


def nested(levels: int, *, defined: bool) -> bytes:
    """A dataset whose sequences are nested so deep; written here, for pydicom cannot."""
    head = b"\x40\0\x30\xa7SQ\0\0"
    if defined:
        inner = b""
        for _ in range(levels):
            block = b"\xfe\xff\0\xe0" + len(inner).to_bytes(4, "little") + inner
            inner = head + len(block).to_bytes(4, "little") + block
        return inner
    opening = head + b"\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    return opening * levels + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * levels


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("levels", [61, 63, 64, 65, 500, 20_000])
def test_nested_however_deep_nothing_crashes(doors: Doors, levels: int, defined: bool) -> None:
    data = made(99, STORAGE + "88.33") + nested(levels, defined=defined)
    answer = post(doors, body(data))
    assert answer.status_code in (200, 409)
    assert answer.status_code == 200 or levels > 63
    assert post(doors, body(KINDS["raw data"])).status_code == 200
    if answer.status_code == 200:
        doors.until(lambda: data in doors.files().values())


def test_dcmdump_agrees_on_what_is_no_dicom() -> None:
    """What DCMTK reads and we refuse has no UIDs to be kept under, or is a directory; and the other way round."""
    program = dcmtk("dcmdump")
    ours_alone, theirs_alone = {}, set()
    for path in corpus():
        try:
            identify_file(memoryview(path.read_bytes()), sender=Sender(door="stow"))
            reason = ""
        except Refused as refused:
            reason = refused.reason
        reads = subprocess.run([program, "-q", str(path)], capture_output=True, check=False, timeout=20)
        if reason and reads.returncode == 0:
            ours_alone[path.name] = reason
        elif not reason and reads.returncode:
            theirs_alone.add(path.name)
    assert set(ours_alone.values()) == {"uid-missing", "uid-invalid", "dicomdir", "no-transfer-syntax"}
    assert ours_alone.items() <= REFUSED.items()
    assert theirs_alone == {"SC_rgb_jpeg.dcm"}
    assert {n for n, r in REFUSED.items() if r in ("not-dicom", "truncated")}.isdisjoint(ours_alone)
