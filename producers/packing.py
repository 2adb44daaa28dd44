"""A sealed pack made ready for S3: the object, compressed where that is worth it, and the manifest that describes it.

What was decided stands in the manifest, which is durable in the spool before anything is sent: every later attempt
makes the same object again, or finds it in S3. Only where that cannot be (another version of the compressor, a disk too
full for the compressed copy) and S3 has nothing of the pack is it decided anew.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from infra import telemetry
from infra.packed import Scratch
from infra.ports import Objects
from producers.body import mapped
from producers.dicom.syntaxes import encoding_of
from producers.journal import Line, Member, scan
from producers.manifest import Stored, first_sender, manifest
from producers.open_pack import journal_path, tar_path
from producers.recovery import StoredPack, checksums, manifest_path, sync_folder
from schemas.errors import Defect, NotFound
from schemas.pack import IDENTITY, ZSTD, PackLine, decode_pack_line, manifest_key, pack_key

log = telemetry.logger(__name__)

PLAIN = telemetry.Counter("sijil_packs_stored_plain", "Packs stored without compression, by why", ["reason"])
COMPRESSED = telemetry.Counter("sijil_packs_bytes", "Bytes of packs before and after compression", ["stage"])

COMPRESS_MIN = 64 << 10
"""Bytes of the smallest tar that is compressed."""


class Damaged(Exception):
    """The disk has damaged a sealed tar."""


@dataclass(frozen=True)
class Ready:
    """A pack ready for S3."""

    line: PackLine
    source: Path | None
    """File with the object; None if S3 has it."""
    manifest_size: int
    manifest_sha256: str
    door: str
    """Of the pack's first sender."""


class Packing:
    """Of one uploading thread."""

    def __init__(self, folder: Path, objects: Objects, bucket: str, scratch: Path) -> None:
        """`folder`: of sealed packs. `scratch`: a file of this thread's own."""
        self._folder, self._objects, self._bucket = folder, objects, bucket
        self._scratch = Scratch(scratch)

    def ready(self, pack: StoredPack) -> Ready:
        """Object and manifest, the manifest durable. Raises Damaged, Transient, Defect, OSError."""
        path = manifest_path(self._folder, pack.pack_id)
        lines = [r.line for r in scan(journal_path(self._folder, pack.pack_id).read_bytes()) if r.line is not None]
        said = decode_pack_line(path.read_bytes()) if path.exists() else None
        if said is not None and self._is_there(said):
            return _ready(path, lines, None)
        try:
            stored, source = self._stored(pack, lines, said.encoding if said else _worth(pack, lines))
        except Damaged:
            if said is not None:
                self._begin_again(said, "the disk has damaged it")
            raise
        if said is not None and (said.size, said.sha256) != (stored.size, stored.sha256):
            self._begin_again(said, "its bytes cannot be made again")
        if not path.exists():
            tar = mapped(tar_path(self._folder, pack.pack_id))
            self._write(path, manifest(pack.opened, pack.sealed, lines, tar, stored))
        return _ready(path, lines, source)

    def trim(self) -> None:
        """A pack was sent."""
        self._scratch.trim()

    def _stored(self, pack: StoredPack, lines: Sequence[Line], encoding: str) -> tuple[Stored, Path]:
        tar = tar_path(self._folder, pack.pack_id)
        if encoding == ZSTD:
            try:
                packed = self._scratch.pack(tar, pack.sealed.size, [x.end for x in lines if isinstance(x, Member)])
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                PLAIN.labels("disk-full").inc()
            else:
                if pack.sealed.crc is not None and packed.tar_crc != pack.sealed.crc:
                    raise Damaged
                COMPRESSED.labels("before").inc(pack.sealed.size)
                COMPRESSED.labels("after").inc(packed.size)
                return Stored(packed.size, packed.sha256, packed.blocks.pairs), packed.path
        digest, checksum = checksums(tar, pack.sealed.size)
        if pack.sealed.crc is not None and checksum != pack.sealed.crc:
            raise Damaged
        return Stored(pack.sealed.size, digest), tar

    def _is_there(self, said: PackLine) -> bool:
        key = pack_key(said.pack_id, said.encoding)
        try:
            found = self._objects.head(self._bucket, key)
        except NotFound:
            return False
        if found.metadata.get("sha256") != said.sha256:
            raise Defect(f"{self._bucket}/{key} is there with other content")
        return True

    def _begin_again(self, said: PackLine, why: str) -> None:
        """Forget a manifest that nobody has seen. Raises Defect when S3 has it: then it had the pack too."""
        try:
            self._objects.head(self._bucket, manifest_key(said.pack_id))
        except NotFound:
            log.warning("publish: a pack is made ready anew", pack_id=said.pack_id, reason=why)
            manifest_path(self._folder, said.pack_id).unlink()
            sync_folder(self._folder)
        else:
            raise Defect(f"S3 has lost pack {said.pack_id}, and {why}")

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".new")
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.rename(temporary, path)
        sync_folder(self._folder)


def _ready(path: Path, lines: Sequence[Line], source: Path | None) -> Ready:
    data = path.read_bytes()
    return Ready(decode_pack_line(data), source, len(data), sha256(data).hexdigest(), first_sender(lines).door)


def _worth(pack: StoredPack, lines: Sequence[Line]) -> str:
    """The encoding for a pack: what is compressed already, or small, gains nothing."""
    if pack.sealed.size < COMPRESS_MIN:
        return IDENTITY
    members = [x for x in lines if isinstance(x, Member)]
    native = sum(m.length for m in members if _is_native(m.transfer_syntax))
    if 2 * native > sum(m.length for m in members):
        return ZSTD
    PLAIN.labels("compressed-already").inc()
    return IDENTITY


def _is_native(transfer_syntax: str) -> bool:
    encoding = encoding_of(transfer_syntax)
    return not (encoding.encapsulated or encoding.deflated)
