"""What there is to import: files in folders, members of ZIPs, what a DICOMDIR refers to. Nothing is read as a whole."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from producers.dicom.essentials import essentials
from producers.dicom.part10 import FILE_META_BYTES_MAX, parse_file_meta
from schemas.errors import Invalid

DICOMDIR = "DICOMDIR"
NO_INSTANCE = ("not-dicom", "dicomdir")
"""Reasons why a file is passed over: a disc has viewers and autostart files beside its images."""
HEAD_BYTES = FILE_META_BYTES_MAX


@dataclass(frozen=True)
class Source:
    """One file to import, on its own or in a ZIP."""

    path: Path
    member: str
    """Name in the ZIP; empty for a file on its own."""
    size: int
    key: str
    """Of path, size and time of change: the same file, untouched, has the same."""

    @property
    def label(self) -> str:
        """For the operator's terminal, never for a log."""
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    def open(self) -> IO[bytes]:
        """Its bytes. Raises OSError, zipfile.BadZipFile, RuntimeError (an encrypted member)."""
        return _zip(self.path).open(self.member) if self.member else self.path.open("rb")


@dataclass(frozen=True)
class Look:
    """What the first bytes of a source say."""

    sop_uid: str
    """Empty when they do not say it."""
    reason: str
    """Why it is passed over; empty when it is to be sent."""


def find(paths: list[Path]) -> Iterator[Source]:
    """Every file that could be an instance, each once, folders in the order of their names."""
    seen: set[str] = set()
    for path in paths:
        for source in _under(path.absolute()):
            if source.key not in seen:
                seen.add(source.key)
                yield source


def look(source: Source) -> Look:
    """Read as much as tells an instance from something else. Raises what `Source.open` does."""
    with source.open() as f:
        head = f.read(HEAD_BYTES)
    try:
        meta = parse_file_meta(head)
    except Invalid as refused:
        return Look("", refused.reason if refused.reason in NO_INSTANCE else "")
    try:
        found = essentials(memoryview(head)[meta.dataset_offset :], meta.transfer_syntax, whole=False)
    except Invalid:
        return Look(meta.sop_instance_uid, "")  # long elements, or damage: the archive judges
    return Look(found.sop_instance_uid or meta.sop_instance_uid, "")


def _under(path: Path) -> Iterator[Source]:
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                yield from _one(Path(folder) / name)
    elif path.name.upper() == DICOMDIR:
        for referred in _referred(path):
            yield from _one(referred)
    else:
        yield from _one(path)


def _one(path: Path) -> Iterator[Source]:
    if path.name.upper() == DICOMDIR or not path.is_file():
        return
    stat = path.stat()
    if zipfile.is_zipfile(path):
        for info in _zip(path).infolist():
            if not info.is_dir() and not info.filename.upper().endswith(DICOMDIR):
                yield _source(path, info.filename, info.file_size, stat)
    else:
        yield _source(path, "", stat.st_size, stat)


def _source(path: Path, member: str, size: int, stat: os.stat_result) -> Source:
    text = f"{path}\0{member}\0{size}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return Source(path, member, size, sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32])


def _referred(dicomdir: Path) -> Iterator[Path]:
    """Files that a DICOMDIR's records name (PS3.10 §8, PS3.3 §F.3.2.2), whatever case the medium is mounted in."""
    try:
        records = dcmread(dicomdir).get("DirectoryRecordSequence") or ()
    except (InvalidDicomError, OSError) as error:
        raise Invalid("dicomdir", f"{dicomdir} cannot be read as a DICOMDIR") from error
    for record in records:
        parts = record.get("ReferencedFileID")
        if parts:
            found = _resolve(dicomdir.parent, [parts] if isinstance(parts, str) else list(parts))
            if found is not None:
                yield found


def _resolve(folder: Path, parts: list[str]) -> Path | None:
    """A path by its parts, each of which is a name in its folder and nothing that leads out of it."""
    for part in parts:
        names = {p.name.upper().removesuffix(";1").rstrip("."): p for p in folder.iterdir()} if folder.is_dir() else {}
        found = names.get(str(part).upper())
        if found is None:
            return None
        folder = found
    return folder


class _OpenZip(threading.local):
    """The ZIP that a thread reads now: its directory is read once, and one file stays open per thread."""

    path: Path | None = None
    zip: zipfile.ZipFile | None = None


_open_zip = _OpenZip()


def _zip(path: Path) -> zipfile.ZipFile:
    if _open_zip.zip is None or _open_zip.path != path:
        _open_zip.path, _open_zip.zip = path, zipfile.ZipFile(path)
    return _open_zip.zip
