"""What the disk kept: packs found at start, checked, and made whole again.

A member counts only if its bytes are those its journal line was written for: the CRC-32 of tar header and File Meta
and the SHA-256 of the dataset. A torn write can leave anything behind the last sync, a whole member of zeros among
it. What is good is kept: in place when the damage is behind it, else by copying the good members into a new pack.
Every step may be interrupted and done again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from infra import clock, telemetry
from producers.body import Filed
from producers.journal import Again, Committed, Line, Member, Opened, Read, Sealed, encode, scan
from producers.open_pack import Instance, OpenPack, journal_path, tar_path
from producers.tar import END

log = telemetry.logger(__name__)

LOST = telemetry.Counter(
    "sijil_spool_members_dropped", "Members found damaged at recovery: never acknowledged, or the disk lost them"
)
MANIFEST_SUFFIX = ".manifest.jsonl.gz"


@dataclass(frozen=True)
class StoredPack:
    """A sealed pack in the spool."""

    opened: Opened
    sealed: Sealed
    committed: Committed | None = None
    recovered: bool = False
    """Sealed by an earlier process: its bytes have not been seen by this one."""

    @property
    def pack_id(self) -> str:
        """Its identity everywhere."""
        return self.opened.pack_id


def manifest_path(folder: Path, pack_id: str) -> Path:
    """The manifest of a pack, once it is made."""
    return folder / (pack_id + MANIFEST_SUFFIX)


def recover(folder: Path, fallback: Opened) -> list[StoredPack]:
    """Every pack in `folder`, sealed, oldest first; what holds nothing is removed.

    `fallback` says site, issuer and gateway of a pack whose first line is gone.
    """
    journals = {p.stem for p in folder.glob("*.journal")}
    for path in folder.iterdir():
        pack_id = path.name.split(".")[0]
        if pack_id not in journals or not path.name.endswith((".tar", ".journal", MANIFEST_SUFFIX)):
            # Files are made before anything in them is acknowledged, and removed journal last.
            path.unlink()
    found = []
    for pack_id in sorted(journals - _unfinished_copies(folder, journals)):
        pack = _recover(folder, pack_id, fallback)
        if pack is not None:
            found.append(pack)
    sync_folder(folder)
    return found


def _unfinished_copies(folder: Path, journals: set[str]) -> set[str]:
    """Remove copies whose origin is still there: it is the truth, and will be copied again."""
    copies = set()
    for pack_id in journals:
        with journal_path(folder, pack_id).open("rb") as f:
            first = next(scan(f.readline()), None)
        if first and isinstance(first.line, Opened) and first.line.salvages in journals:
            remove(folder, pack_id)
            copies.add(pack_id)
    return copies


def _recover(folder: Path, pack_id: str, fallback: Opened) -> StoredPack | None:
    reads = list(scan(journal_path(folder, pack_id).read_bytes()))
    lines = [r.line for r in reads if r.line is not None]
    opened = next((x for x in lines if isinstance(x, Opened)), None)
    sealed = next((x for x in lines if isinstance(x, Sealed)), None)
    committed = next((x for x in reversed(lines) if isinstance(x, Committed)), None)
    tar = tar_path(folder, pack_id)
    size = tar.stat().st_size if tar.exists() else -1
    if opened and sealed and size == sealed.size:
        return StoredPack(opened, sealed, committed, recovered=True)
    if committed:
        remove(folder, pack_id)  # its eviction was interrupted, or the cached copy is damaged: S3 has it
        return None
    opened = opened or _told_by_members(fallback, pack_id, lines)
    good = [x for x in lines if isinstance(x, Member) and is_whole(tar, x)] if size >= 0 else []
    _report(pack_id, lines, good)
    if not good:
        remove(folder, pack_id)
        return None
    end = _clean_prefix(reads, good)
    if end is None:
        return salvage(folder, opened, good, _repeats(lines, good))
    os.truncate(journal_path(folder, pack_id), end)
    os.truncate(tar, good[-1].end)
    return _seal(folder, opened, len(good), len(_repeats(lines, good)))


def is_whole(tar: Path, member: Member) -> bool:
    """Whether the tar has the bytes that the line says."""
    before = Filed(tar, member.offset + member.dataset_offset - member.entry, member.entry)
    dataset = Filed(tar, member.length - member.dataset_offset, member.offset + member.dataset_offset)
    checksum, seen = 0, 0
    for chunk in before.chunks():
        checksum, seen = crc32(chunk, checksum), seen + len(chunk)
    if checksum != member.crc or seen != before.length:
        return False
    digest = sha256()
    for chunk in dataset.chunks():
        digest.update(chunk)
    return digest.hexdigest() == member.sha256 and os.path.getsize(tar) >= member.end


def is_intact(folder: Path, pack: StoredPack) -> bool:
    """Whether a sealed tar still has the bytes that it was sealed with."""
    try:
        digest, checksum = checksums(tar_path(folder, pack.pack_id), pack.sealed.size)
    except FileNotFoundError:
        return False
    return checksum == pack.sealed.crc if pack.sealed.crc is not None else digest == pack.sealed.sha256


def checksums(tar: Path, size: int) -> tuple[str, int]:
    """SHA-256, hex, and CRC-32 of a tar. Raises OSError."""
    digest, checksum = sha256(), 0
    for chunk in Filed(tar, size, 0).chunks():
        digest.update(chunk)
        checksum = crc32(chunk, checksum)
    return digest.hexdigest(), checksum


def salvage_sealed(folder: Path, pack: StoredPack) -> StoredPack | None:
    """A new pack of what is still good in one that the disk damaged after it was sealed; None if nothing is."""
    lines = [r.line for r in scan(journal_path(folder, pack.pack_id).read_bytes()) if r.line is not None]
    tar = tar_path(folder, pack.pack_id)
    good = [x for x in lines if isinstance(x, Member) and tar.exists() and is_whole(tar, x)]
    _report(pack.pack_id, lines, good)
    if not good:
        return None
    return salvage(folder, pack.opened, good, _repeats(lines, good))


def salvage(folder: Path, old: Opened, good: Sequence[Member], repeats: Iterable[Again]) -> StoredPack:
    """Copy the good members of a damaged pack into a new one, then remove the damaged one."""
    # Step 1: the copy, durable, naming what it copies; while that exists the copy does not count
    opened = Opened(
        pack_id=str(clock.uuid7()),
        study_uid=old.study_uid,
        site=old.site,
        issuer=old.issuer,
        gateway=old.gateway,
        opened=old.opened,
        salvages=old.pack_id,
    )
    pack = OpenPack(folder, opened)
    with pack.lock:
        for member in good:
            body = Filed(tar_path(folder, old.pack_id), member.length, member.offset)
            pack.add(_instance(member), body, member.sha256, received=member.received)
        for again in repeats:
            pack.repeat(again)
        sealed = pack.seal(clock.rfc3339(clock.now()))
    os.fsync(pack.tar_fd)
    os.fsync(pack.journal_fd)
    pack.close()
    sync_folder(folder)
    # Step 2: the damaged one goes
    remove(folder, old.pack_id)
    sync_folder(folder)
    return StoredPack(opened, sealed)


def remove(folder: Path, pack_id: str) -> None:
    """Remove a pack's files, the journal last: files without one are removed at the next start."""
    tar_path(folder, pack_id).unlink(missing_ok=True)
    manifest_path(folder, pack_id).unlink(missing_ok=True)
    journal_path(folder, pack_id).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make creations, renames and removals in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def append_line(folder: Path, pack_id: str, line: Line) -> None:
    """A durable line at the end of a sealed pack's journal."""
    fd = os.open(journal_path(folder, pack_id), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        data = encode(line)
        if os.write(fd, data) != len(data):
            raise OSError(f"short write to the journal of pack {pack_id}")
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _told_by_members(fallback: Opened, pack_id: str, lines: Sequence[Line]) -> Opened:
    """What the first line would have said, as far as the members say it."""
    member = next((x for x in lines if isinstance(x, Member)), None)
    if member is None:
        return fallback
    return Opened(
        pack_id=pack_id,
        study_uid=member.study_uid,
        site=fallback.site,
        issuer=fallback.issuer,
        gateway=fallback.gateway,
        opened=member.received,
    )


def _seal(folder: Path, opened: Opened, instances: int, repeats: int) -> StoredPack:
    """Seal a tar that ends behind its last good member."""
    path = tar_path(folder, opened.pack_id)
    with open(path, "r+b", buffering=0) as f:
        f.seek(0, os.SEEK_END)
        f.write(END)
        os.fsync(f.fileno())
    size = path.stat().st_size
    sealed = Sealed(
        size=size,
        crc=checksums(path, size)[1],
        instances=instances,
        repeats=repeats,
        sealed=clock.rfc3339(clock.now()),
    )
    append_line(folder, opened.pack_id, sealed)
    return StoredPack(opened, sealed)


def _clean_prefix(reads: Sequence[Read], good: Sequence[Member]) -> int | None:
    """Where the journal may be cut so that exactly the good members stay; None if damage lies between them."""
    kept: list[Member] = []
    end = 0
    for read in reads:
        line = read.line
        if isinstance(line, Member) and len(kept) < len(good) and line is good[len(kept)]:
            if line.entry != (kept[-1].end if kept else 0):
                return None
            kept.append(line)
        elif isinstance(line, Again):
            if not any((m.sop_uid, m.sha256) == (line.sop_uid, line.sha256) for m in kept):
                break
        elif not isinstance(line, Opened):
            break
        end = read.end
    return end if len(kept) == len(good) and isinstance(reads[0].line, Opened) else None


def _repeats(lines: Sequence[Line], good: Sequence[Member]) -> list[Again]:
    have = {(m.sop_uid, m.sha256) for m in good}
    return [x for x in lines if isinstance(x, Again) and (x.sop_uid, x.sha256) in have]


def _report(pack_id: str, lines: Sequence[Line], good: Sequence[Member]) -> None:
    dropped = sum(isinstance(x, Member) for x in lines) - len(good)
    if dropped:
        LOST.inc(dropped)
        log.warning("spool: damaged members dropped", pack_id=pack_id, count=dropped, instances=len(good))


def _instance(member: Member) -> Instance:
    return Instance(
        study_uid=member.study_uid,
        series_uid=member.series_uid,
        sop_uid=member.sop_uid,
        sop_class=member.sop_class,
        transfer_syntax=member.transfer_syntax,
        dataset_offset=member.dataset_offset,
        sender=member.sender,
        marks=member.marks,
    )
