"""What a crash, a torn write or a failing disk leaves: good members stay, byte for byte, and nothing else."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producers import recovery
from producers.body import Held, dataset_sha256
from producers.journal import Committed, Line, Member, Opened, encode, scan
from producers.open_pack import OpenPack, journal_path, tar_path
from producers.recovery import StoredPack, is_intact, manifest_path, recover, salvage_sealed
from tests.unit.producers.samples import STUDY, file, instance

PACK = "01890000-0000-7000-8000-000000000001"
NOW = "2025-03-01T08:15:00.000000Z"
OPENED = Opened(pack_id=PACK, study_uid=STUDY, site="S1", issuer="I1", gateway="/gateway/S1/1", opened=NOW)
FALLBACK = Opened(pack_id="", study_uid="", site="LOCAL", issuer="LOCAL", gateway="/gateway/LOCAL/1", opened="")
FILES = {f"1.2.{n}": file(f"1.2.{n}", pixels=bytes([n]) * (300 * n)) for n in range(1, 6)}


@dataclass(frozen=True)
class Image:
    """The two files of an open pack as they would be after a crash, nothing damaged yet."""

    tar: bytes
    journal: bytes
    members: tuple[Member, ...]
    lines: tuple[tuple[int, int], ...]
    """Start and end of each member's line in the journal."""


def image() -> Image:
    """An open pack with all FILES, the second of them sent twice."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack = OpenPack(folder, OPENED)
        for n, (sop, data) in enumerate(FILES.items()):
            found, body = instance(sop, data), Held((data,))
            digest = dataset_sha256(body, found.dataset_offset)
            assert pack.add(found, body, digest, received=NOW)
            if n == 1:
                assert not pack.add(found, body, digest, received=NOW)
        pack.close()
        tar, journal = tar_path(folder, PACK).read_bytes(), journal_path(folder, PACK).read_bytes()
    starts, reads = 0, []
    for read in scan(journal):
        reads.append((starts, read.end, read.line))
        starts = read.end
    members = [(s, e, x) for s, e, x in reads if isinstance(x, Member)]
    return Image(tar, journal, tuple(x for *_, x in members), tuple((s, e) for s, e, _ in members))


IMAGE = image()


def write(folder: Path, tar: bytes, journal: bytes) -> None:
    tar_path(folder, PACK).write_bytes(tar)
    journal_path(folder, PACK).write_bytes(journal)


def contents(folder: Path, packs: list[StoredPack]) -> dict[str, bytes]:
    """Names and bytes of what was recovered, read by somebody else's tar."""
    found: dict[str, bytes] = {}
    for pack in packs:
        assert is_intact(folder, pack)
        with tarfile.open(tar_path(folder, pack.pack_id)) as archive:
            names = archive.getnames()
            assert len(names) == pack.sealed.instances
            for member in archive.getmembers():
                data = archive.extractfile(member)
                assert data is not None
                found[member.name.removesuffix(".dcm")] = data.read()
        lines = [r.line for r in scan(journal_path(folder, pack.pack_id).read_bytes())]
        assert [x.name for x in lines if isinstance(x, Member)] == names
        assert pack.opened.study_uid == STUDY
    return found


def check(tar: bytes, journal: bytes, expected: set[str]) -> None:
    """Recover twice: the expected members, byte for byte, and the second time nothing changes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, tar, journal)
        packs = recover(folder, FALLBACK)
        assert contents(folder, packs) == {sop: FILES[sop] for sop in expected}
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
        again = recover(folder, FALLBACK)
        assert [(p.pack_id, p.sealed) for p in again] == [(p.pack_id, p.sealed) for p in packs]
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
        # Nothing else is left lying about.
        assert len(before) == 2 * len(packs)


def untouched(start: int, end: int) -> set[str]:
    """Members of the tar that bytes start..end do not belong to, padding not counted."""
    return {m.sop_uid for m in IMAGE.members if end <= m.entry or start >= m.offset + m.length}


def test_an_undamaged_pack() -> None:
    check(IMAGE.tar, IMAGE.journal, set(FILES))


@given(st.integers(0, len(IMAGE.tar)))
@example(0)
@example(IMAGE.members[-1].end - 1)
def test_a_cut_tar(at: int) -> None:
    check(IMAGE.tar[:at], IMAGE.journal, {m.sop_uid for m in IMAGE.members if m.end <= at})


@given(st.integers(0, len(IMAGE.journal)))
def test_a_cut_journal(at: int) -> None:
    expected = {m.sop_uid for m, (_, end) in zip(IMAGE.members, IMAGE.lines, strict=True) if end <= at}
    check(IMAGE.tar, IMAGE.journal[:at], expected)


def places() -> list[tuple[str, int]]:
    """An offset of every class in every member: tar header, preamble, prefix, File Meta, dataset, pixels, padding."""
    found = []
    for m in IMAGE.members:
        start = m.offset + m.dataset_offset
        found += [
            ("tar header: name", m.entry),
            ("tar header: size", m.entry + 124),
            ("tar header: checksum", m.entry + 148),
            ("tar header: last byte", m.entry + 511),
            ("preamble", m.offset + 5),
            ("prefix", m.offset + 128),
            ("file meta", m.offset + 150),
            ("last byte of file meta", start - 1),
            ("first byte of dataset", start),
            ("dataset", start + 40),
            ("last byte of dataset", m.offset + m.length - 1),
        ]
    return found


@pytest.mark.parametrize(("what", "at"), places())
def test_a_flipped_byte_of_each_class(what: str, at: int) -> None:
    damaged = bytearray(IMAGE.tar)
    damaged[at] ^= 0x40
    check(bytes(damaged), IMAGE.journal, untouched(at, at + 1))


@given(st.integers(0, len(IMAGE.tar) - 1), st.integers(1, 255))
def test_a_flipped_byte(at: int, mask: int) -> None:
    damaged = bytearray(IMAGE.tar)
    damaged[at] ^= mask
    check(bytes(damaged), IMAGE.journal, untouched(at, at + 1))


@given(st.integers(0, len(IMAGE.tar) - 1), st.integers(1, 4096))
def test_zeros_where_pages_were_not_written(start: int, length: int) -> None:
    end = min(len(IMAGE.tar), start + length)
    damaged = IMAGE.tar[:start] + bytes(end - start) + IMAGE.tar[end:]
    whole = {m.sop_uid for m in IMAGE.members if damaged[m.entry : m.end] == IMAGE.tar[m.entry : m.end]}
    check(damaged, IMAGE.journal, whole)


@given(st.sampled_from(range(len(IMAGE.members))))
def test_a_whole_member_of_zeros(n: int) -> None:
    m = IMAGE.members[n]
    damaged = IMAGE.tar[: m.entry] + bytes(m.end - m.entry) + IMAGE.tar[m.end :]
    check(damaged, IMAGE.journal, set(FILES) - {m.sop_uid})


@settings(max_examples=200)
@given(st.integers(0, len(IMAGE.journal) - 1), st.integers(1, 255))
def test_a_flipped_byte_in_the_journal(at: int, mask: int) -> None:
    damaged = bytearray(IMAGE.journal)
    damaged[at] ^= mask
    whole = IMAGE.journal[at] != 10 and damaged[at] != 10
    expected = {m.sop_uid for m, (start, end) in zip(IMAGE.members, IMAGE.lines, strict=True) if not start <= at < end}
    if whole:
        check(IMAGE.tar, bytes(damaged), expected)
    else:  # two lines became one, or one became two
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), IMAGE.tar, bytes(damaged))
            found = contents(Path(name), recover(Path(name), FALLBACK))
            assert set(found) >= {
                m.sop_uid
                for m, (start, end) in zip(IMAGE.members, IMAGE.lines, strict=True)
                if at + 1 < start or at >= end
            }


def test_a_pack_whose_first_line_is_gone_is_named_by_its_members(tmp_path: Path) -> None:
    write(tmp_path, IMAGE.tar, b"x" + IMAGE.journal[1:])
    (pack,) = recover(tmp_path, FALLBACK)
    assert (pack.opened.study_uid, pack.opened.site, pack.opened.gateway) == (STUDY, "LOCAL", "/gateway/LOCAL/1")
    assert set(contents(tmp_path, [pack])) == set(FILES)


def test_repeats_are_counted(tmp_path: Path) -> None:
    write(tmp_path, IMAGE.tar, IMAGE.journal)
    assert recover(tmp_path, FALLBACK)[0].sealed.repeats == 1


@pytest.mark.parametrize("name", [f"{PACK}.tar", f"{PACK}.manifest.jsonl.gz", "something"])
def test_files_without_a_journal_go(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(IMAGE.tar)
    assert recover(tmp_path, FALLBACK) == []
    assert list(tmp_path.iterdir()) == []


def committed(folder: Path) -> StoredPack:
    """A sealed and committed pack in `folder`."""
    write(folder, IMAGE.tar, IMAGE.journal)
    (pack,) = recover(folder, FALLBACK)
    line: Line = Committed(event_id="e", partition=1, offset=2, committed=NOW)
    with journal_path(folder, PACK).open("ab") as f:
        f.write(encode(line))
    return pack


def test_a_committed_pack_stays_one(tmp_path: Path) -> None:
    committed(tmp_path)
    manifest_path(tmp_path, PACK).write_bytes(b"m")
    (pack,) = recover(tmp_path, FALLBACK)
    assert pack.committed == Committed(event_id="e", partition=1, offset=2, committed=NOW)
    assert pack.recovered
    assert manifest_path(tmp_path, PACK).exists()


@pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_bytes(b"short")])
def test_a_committed_pack_without_its_bytes_is_forgotten(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    committed(tmp_path)
    damage(tar_path(tmp_path, PACK))
    assert recover(tmp_path, FALLBACK) == []
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ after sealing


@given(st.integers(0, len(IMAGE.tar) + 1023))
def test_damage_after_sealing_is_found_and_the_good_members_saved(at: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, IMAGE.tar, IMAGE.journal)
        (pack,) = recover(folder, FALLBACK)
        with tar_path(folder, PACK).open("r+b") as f:
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 1]))
        assert not is_intact(folder, pack)
        saved = salvage_sealed(folder, pack)
        assert saved is not None
        assert saved.pack_id != PACK
        assert set(contents(folder, [saved])) == untouched(at, at + 1)
        assert not journal_path(folder, PACK).exists()


def test_a_copy_that_was_not_finished_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    middle = IMAGE.members[2]
    damaged = IMAGE.tar[: middle.offset] + b"?" + IMAGE.tar[middle.offset + 1 :]
    write(tmp_path, damaged, IMAGE.journal)

    class Killed(BaseException):
        pass

    def die(folder: Path, pack_id: str) -> None:
        raise Killed

    with monkeypatch.context() as m:
        m.setattr(recovery, "remove", die)
        with pytest.raises(Killed):
            recover(tmp_path, FALLBACK)
    assert len(list(tmp_path.glob("*.journal"))) == 2
    packs = recover(tmp_path, FALLBACK)
    assert set(contents(tmp_path, packs)) == set(FILES) - {middle.sop_uid}
    assert len(list(tmp_path.glob("*.journal"))) == 1


def test_killed_at_any_point_of_sealing(tmp_path: Path) -> None:
    write(tmp_path, IMAGE.tar, IMAGE.journal)
    (pack,) = recover(tmp_path, FALLBACK)
    tar, journal = tar_path(tmp_path, PACK).read_bytes(), journal_path(tmp_path, PACK).read_bytes()
    assert crc32(tar) == pack.sealed.crc
    for tar_end in (len(IMAGE.tar), len(IMAGE.tar) + 100, len(tar)):
        for journal_end in (len(IMAGE.journal), len(IMAGE.journal) + 20, len(journal)):
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            check(tar[:tar_end], journal[:journal_end], set(FILES))
