"""Which copies of a pack's instances the archive had before."""

from __future__ import annotations

from infra.memory import MemoryObjects
from schemas.events import ConflictFound, DuplicateFound
from streams.arrivals import fold
from streams.copies import Copy, compare, conflict, duplicates_by_sha256, duplicates_canonical, series_to_read
from streams.pack_rows import PackRow
from tests.unit.streams.samples import EXPLICIT, KEYS, Pack, fact, pack_id, sha


def copy(sop: str, offset: int, content: str, line: int = 0, series: str = "s") -> Copy:
    return Copy(series, sop, offset, line, pack_id(offset), EXPLICIT, 512, 900, 300, sha(content))


def rows(*packs: Pack) -> tuple[PackRow, ...]:
    objects = MemoryObjects()
    facts = [fact(p.put(objects), n) for n, p in enumerate(packs)]
    return fold(facts, (), {n: p.manifest for n, p in enumerate(packs)}, KEYS).arrivals[-1].rows


def test_only_series_with_common_uids_are_read() -> None:
    first = Pack(0, (("1", "1", "a"), ("2", "2", "b"), ("3", "3", "c")))
    assert series_to_read(rows(first), 3) == []
    assert series_to_read(rows(first, Pack(1, (("2", "2", "x"), ("4", "9", "y")))), 2) == ["1.2.3.2.0"]
    # The same UID under another series: both are read.
    assert series_to_read(rows(first, Pack(1, (("5", "1", "x"),))), 1) == ["1.2.3.1.0", "1.2.3.5.0"]


def test_a_uid_twice_in_one_pack_is_looked_at() -> None:
    twice = Pack(0, (("1", "1", "a"), ("1", "1", "b")))
    assert series_to_read(rows(twice), 2) == ["1.2.3.1.0"]
    found = compare([copy("x", 0, "a"), copy("x", 0, "b", line=1)], 0)
    assert [(c.line, [e.line for e in earlier]) for c, earlier in found.others] == [(1, [0])]


def test_any_earlier_copy_with_the_same_bytes_is_a_duplicate() -> None:
    had = [copy("x", 1, "a"), copy("x", 2, "b"), copy("y", 2, "c")]
    found = compare([*had, copy("x", 5, "b"), copy("y", 5, "d"), copy("z", 5, "e"), copy("y", 9, "c")], 5)
    assert found.same == 1
    ((other, earlier),) = found.others
    assert (other.sop_uid, [e.offset for e in earlier]) == ("y", [2])


def test_distinct_earlier_contents_in_log_order() -> None:
    had = [copy("x", 3, "b"), copy("x", 1, "a"), copy("x", 2, "a")]
    ((_, earlier),) = compare([*had, copy("x", 5, "c")], 5).others
    assert [e.offset for e in earlier] == [1, 3]


def test_events_are_bounded_and_have_the_same_ids_again() -> None:
    row = rows(Pack(0))[0]
    assert duplicates_by_sha256(row, 0) == []
    uids = [f"1.2.{n}" for n in range(30)]
    emits = duplicates_canonical(row, uids)
    sizes = [e.event.instances for e in emits if isinstance(e.event, DuplicateFound)]
    assert sizes == [12, 12, 6]
    assert emits == duplicates_canonical(row, uids)
    assert len({e.id for e in [*emits, *duplicates_by_sha256(row, 3)]}) == 4


def test_a_conflict_names_the_served_copy_first() -> None:
    first, second = copy("x", 1, "a"), copy("x", 5, "b")
    event = conflict("1.2.3", first, second, "2025-03-01T08:00:00.000Z", "content-differs").event
    assert isinstance(event, ConflictFound)
    assert (event.first_offset, event.second_offset, event.first_sha256) == (1, 5, sha("a"))
