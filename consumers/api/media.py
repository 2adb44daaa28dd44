"""The DICOMDIR of interchange media (PS3.10 §8, PS3.3 Annex F), from headers as DICOM JSON. Pure.

Records are pydicom's, laid out here: it makes them only of files that lie on a disk. What a record must have and the
instance lacks is filled in as DCMTK's dcmmkdir does it, so that readers take the directory; instances stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest
from typing import Any

import msgspec
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.fileset import DIRECTORY_RECORDERS
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from schemas.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

IN_USE = 0xFFFF
NAME = "DICOMDIR"
_STORAGE = "1.2.840.10008.5.1.4.1.1."

# PS3.3 Table F.4-1 by the SOP classes of PS3.4 Annex B: the longest prefix decides; everything else is an image.
RECORD_TYPES: Mapping[str, str] = {
    "9": "WAVEFORM", "11": "PRESENTATION", "88": "SR DOCUMENT", "88.59": "KEY OBJECT DOC", "104": "ENCAP DOC",
    "4.2": "SPECTROSCOPY", "66": "RAW DATA", "66.1": "REGISTRATION", "66.2": "FIDUCIAL", "66.3": "REGISTRATION",
    "66.4": "IMAGE", "66.5": "SURFACE", "66.6": "TRACT", "67": "VALUE MAP", "68.1": "SURFACE SCAN",
    "68.2": "SURFACE SCAN", "90": "ASSESSMENT", "481.2": "RT DOSE", "481.3": "RT STRUCTURE SET",
    "481.4": "RT TREAT RECORD", "481.5": "RT PLAN", "481.6": "RT TREAT RECORD", "481.7": "RT TREAT RECORD", 
    "481.8": "RT PLAN", "481.9": "RT TREAT RECORD", "78": "RADIOTHERAPY",
}  # fmt: skip

# What records are made of; nothing else of a header is read.
_KEYS = frozenset(
    """00080016 00080018 00080020 00080021 00080022 00080023 00080030 00080033 00080050 00080060 00081030 0008103E
    00081115 00100010 00100020 0020000D 0020000E 00200010 00200011 00200013 0040A043 0040A491 0040A493 0040A030 0040A032
    00420010 00420012 00700080 00700081 00700082 00700083 00700084 3004000A 30060002 30060008 30060009 300A0002 300A0006
    300A0007 30080250 30080251 00280008 00189004 00180089""".split()
)
_DEFAULTS = {
    "PatientID": "UNKNOWN", "StudyDate": "19000101", "StudyTime": "000000", "StudyID": "0", "Modality": "OT",
    "SeriesNumber": "0", "InstanceNumber": "0", "ContentDate": "19000101", "ContentTime": "000000",
    "CompletionFlag": "PARTIAL", "VerificationFlag": "UNVERIFIED", "ContentLabel": "UNKNOWN",
    "PresentationCreationDate": "19000101", "PresentationCreationTime": "000000", "DoseSummationType": "PLAN",
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A file of the medium."""

    file_id: tuple[str, ...]
    """Its path in components of eight characters (PS3.10 §8.2, §8.5)."""
    sop_class: str
    transfer_syntax: str
    header: bytes
    """DICOM JSON."""


@dataclass
class _Record:
    """A directory record and those below it."""

    content: Dataset
    below: dict[str, _Record] = field(default_factory=dict)
    offset: int = 0


def file_id(series: int, instance: int) -> tuple[str, ...]:
    """Of the n-th instance of the n-th series, from 1."""
    return ("DICOM", f"S{series:07d}", f"I{instance:07d}")


def record_type(sop_class: str) -> str:
    """The Directory Record Type (0004,1430) of an instance."""
    if not sop_class.startswith("1.2.840.10008."):
        return "PRIVATE"
    parts = sop_class.removeprefix(_STORAGE).split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((RECORD_TYPES[p] for p in prefixes if p in RECORD_TYPES), "IMAGE")


def dicomdir(members: Iterable[Member]) -> bytes:
    """The Media Storage Directory of the files, patient by patient."""
    top: dict[str, _Record] = {}
    content = sha256()
    for member in members:
        _add(top, member)
        content.update(member.header)
    # Of the file-set: the same files give the same one, others another (PS3.5 §B.2).
    uid = UID(f"2.25.{int.from_bytes(content.digest()[:16], 'big')}")
    root = _root()
    # Lengths do not depend on the offsets within: laid out first, then written with them.
    start = len(_file(root, b"", uid))
    last = _lay_out(top.values(), start)
    root.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = start if top else 0
    root.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = last
    return _file(root, b"".join(_item(r.content) for r in _walk(top.values())), uid)


def _add(top: dict[str, _Record], member: Member) -> None:
    told = _read(member.header)
    level = top
    for kind, key in (("PATIENT", "PatientID"), ("STUDY", "StudyInstanceUID"), ("SERIES", "SeriesInstanceUID")):
        name = str(told.get(key, ""))
        if name not in level:
            level[name] = _Record(_record(kind, told))
        level = level[name].below
    kind = record_type(member.sop_class)
    record = _record(kind, told)
    record.ReferencedFileID = list(member.file_id)
    record.ReferencedSOPClassUIDInFile = UID(member.sop_class)
    record.ReferencedSOPInstanceUIDInFile = told.SOPInstanceUID
    record.ReferencedTransferSyntaxUIDInFile = UID(member.transfer_syntax)
    if kind == "PRIVATE":
        record.PrivateRecordUID = UID(member.sop_class)
    level[str(told.SOPInstanceUID)] = _Record(record)


def _read(header: bytes) -> Dataset:
    found: dict[str, Any] = msgspec.json.decode(header)
    told = Dataset()
    for tag in _KEYS & found.keys():
        with suppress(ValueError, TypeError):  # a value that is none of its VR: as if it were not there
            told.update(Dataset.from_json({tag: found[tag]}))
    for keyword, value in _DEFAULTS.items():
        if told.get(keyword) in (None, ""):
            setattr(told, keyword, value)
    return told


def _record(kind: str, told: Dataset) -> Dataset:
    try:
        content = DIRECTORY_RECORDERS[kind](told)
    except (KeyError, ValueError, AttributeError):
        # Without what its type wants, a record names its file all the same.
        content = Dataset()
        content.InstanceNumber = told.InstanceNumber
    content.OffsetOfTheNextDirectoryRecord = 0
    content.RecordInUseFlag = IN_USE
    content.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    content.DirectoryRecordType = kind
    content.SpecificCharacterSet = "ISO_IR 192"
    return content


def _lay_out(records: Iterable[_Record], start: int) -> int:
    """Give each record its offset, in the order of writing, and the offsets it refers to; the last of the top ones."""
    tops = list(records)
    at = start
    for record in _walk(tops):
        record.offset = at
        at += len(_item(record.content))
    _link(tops)
    return tops[-1].offset if tops else 0


def _link(records: list[_Record]) -> None:
    for record, after in zip_longest(records, records[1:]):
        record.content.OffsetOfTheNextDirectoryRecord = after.offset if after else 0
        below = list(record.below.values())
        record.content.OffsetOfReferencedLowerLevelDirectoryEntity = below[0].offset if below else 0
        _link(below)


def _walk(records: Iterable[_Record]) -> Iterator[_Record]:
    for record in records:
        yield record
        yield from _walk(record.below.values())


def _item(content: Dataset) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, content)
    data = out.getvalue()
    return b"\xfe\xff\x00\xe0" + len(data).to_bytes(4, "little") + data


def _root() -> Dataset:
    root = Dataset()
    root.FileSetID = "SIJIL"
    root.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    root.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    root.FileSetConsistencyFlag = 0
    return root


def _file(root: Dataset, items: bytes, uid: UID) -> bytes:
    """The file with a directory record sequence of these items."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    out = DicomBytesIO()
    pydicom.dcmwrite(out, pydicom.FileDataset("", root, file_meta=meta, preamble=bytes(128)), enforce_file_format=True)
    sequence = b"\x04\x00\x20\x12SQ\0\0" + len(items).to_bytes(4, "little")
    return out.getvalue() + sequence + items
