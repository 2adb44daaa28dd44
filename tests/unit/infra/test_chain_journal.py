"""The journal: what was kept comes back; a torn end is cut off; anything else that changed is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import chain_journal
from infra.chain_journal import Head, Journal
from schemas.envelope import GENESIS, Record
from schemas.errors import Defect, Overloaded
from tests.unit.infra.chains import SOURCE, chained, in_batches

Batch = Sequence[tuple[int, str, Record]]


def write(folder: Path, batches: Sequence[Batch], segment_bytes: int = chain_journal.SEGMENT_BYTES) -> None:
    journal = Journal(folder, SOURCE, segment_bytes)
    for batch in batches:
        journal.keep(batch)
    journal.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def entries(folder: Path) -> list[tuple[int, str, Record]]:
    """Everything in the journal, after a recovery."""
    journal = Journal(folder, SOURCE)
    found = [(e.sequence, e.hash, e.record) for e in journal.read(journal.oldest + 1)]
    journal.close()
    return found


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    batches = in_batches(chained(6), [1, 3, 2])
    write(tmp_path, batches)
    everything = [r for b in batches for r in b]
    assert entries(tmp_path) == everything
    journal = Journal(tmp_path, SOURCE)
    assert journal.head == Head(6, everything[-1][1])
    assert [e.sequence for e in journal.read(4)] == [4, 5, 6]
    assert list(journal.read(7)) == []
    assert [journal.hash_at(n) for n in range(7)] == [GENESIS, *(h for _, h, _ in everything)]
    journal.close()


def test_a_journal_that_begins(tmp_path: Path) -> None:
    assert not Journal.exists(tmp_path)
    journal = Journal(tmp_path, SOURCE)
    assert (journal.head, journal.oldest, journal.acknowledged) == (Head(0, GENESIS), 0, 0)
    assert Journal.exists(tmp_path)
    journal.close()


def test_segments_are_followed_and_forgotten(tmp_path: Path) -> None:
    batches = in_batches(chained(10), [2] * 5)
    write(tmp_path, batches, segment_bytes=1)
    assert [int(p.stem) for p in segments(tmp_path)] == [1, 3, 5, 7, 9]
    journal = Journal(tmp_path, SOURCE, 1)
    journal.acknowledge(5)
    assert [int(p.stem) for p in segments(tmp_path)] == [5, 7, 9]
    assert (journal.acknowledged, journal.oldest) == (5, 4)
    with pytest.raises(Defect):
        list(journal.read(4))
    journal.acknowledge(10)
    assert [int(p.stem) for p in segments(tmp_path)] == [9]
    journal.close()
    again = Journal(tmp_path, SOURCE, 1)
    assert (again.head.sequence, again.oldest, again.acknowledged) == (10, 8, 10)
    assert again.hash_at(8) == batches[3][1][1]
    again.keep(in_batches(chained(1, prevhash=again.head.hash, first=11), [1])[0])
    again.close()
    assert [s for s, _, _ in entries(tmp_path)] == [9, 10, 11]


def test_a_note_that_is_lost_only_means_to_send_again(tmp_path: Path) -> None:
    write(tmp_path, in_batches(chained(3), [3]))
    journal = Journal(tmp_path, SOURCE)
    journal.acknowledge(2)
    journal.close()
    (tmp_path / "acknowledged").write_bytes(bytes(20))
    journal = Journal(tmp_path, SOURCE)
    assert journal.acknowledged == 0
    journal.close()


def test_of_another_source(tmp_path: Path) -> None:
    write(tmp_path, in_batches(chained(1), [1]))
    with pytest.raises(Defect, match="belongs to"):
        Journal(tmp_path, "/gateway/OTHER/1")


# ------------------------------------------------------------------------------------------------ damage


def test_a_last_batch_cut_anywhere_loses_whole_records_of_it_only(tmp_path: Path) -> None:
    batches = in_batches(chained(5), [2, 3])
    write(tmp_path, batches[:1])
    (path,) = segments(tmp_path)
    whole = len(path.read_bytes())
    write(tmp_path, batches[1:])
    data = path.read_bytes()
    lines = data[whole:].splitlines(keepends=True)
    for cut in {*range(0, len(data) - whole, 23), *(len(lines[0]) + d for d in (-1, 0, 1))}:
        path.write_bytes(data[: whole + cut])
        complete = sum(cut >= len(b"".join(lines[: n + 1])) for n in range(3))
        assert [s for s, _, _ in entries(tmp_path)] == list(range(1, 3 + complete))
        assert path.read_bytes() == data[: whole + len(b"".join(lines[:complete]))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_cut_off_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Zeros or other bytes anywhere: what is read back is what was kept. Records are only missing from the last batch,
    unless the damage reaches into it from before: such an end looks torn.
    """
    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    batches = in_batches(chained(sum(sizes)), sizes)
    write(folder, batches, data.draw(st.sampled_from([1, 2_000, 1 << 20])))
    path = data.draw(st.sampled_from(segments(folder)))
    content = bytearray(path.read_bytes())
    last_batch = content.index(b'"sequence":%d,' % (sum(sizes[:-1]) + 1)) if path == segments(folder)[-1] else 1 << 30
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start + 1, min(len(content), start + 2_000)))
    content[start:end] = bytes(end - start) if data.draw(st.booleans()) else bytes(b ^ 1 for b in content[start:end])
    path.write_bytes(content)
    everything = [r for b in batches for r in b]
    try:
        found = entries(folder)
    except Defect:
        return
    assert found == everything[: len(found)]
    assert len(found) >= sum(sizes[:-1]) or start < last_batch - 2 < end


def test_damage_before_the_last_batch_is_refused(tmp_path: Path) -> None:
    batches = in_batches(chained(4), [2, 2])
    write(tmp_path, batches)
    (path,) = segments(tmp_path)
    content = path.read_bytes()
    second_line = content.index(b"\n") + 10
    path.write_bytes(content[:second_line] + b"#" + content[second_line + 1 :])
    with pytest.raises(Defect, match="damaged behind sequence 0"):
        Journal(tmp_path, SOURCE)
    assert path.read_bytes()[second_line : second_line + 1] == b"#"


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    write(tmp_path, in_batches(chained(6), [2, 2, 2]), segment_bytes=1)
    segments(tmp_path)[1].unlink()
    with pytest.raises(Defect, match="does not follow"):
        Journal(tmp_path, SOURCE)


def test_what_was_acknowledged_may_not_be_missing(tmp_path: Path) -> None:
    write(tmp_path, in_batches(chained(3), [1, 2]))
    journal = Journal(tmp_path, SOURCE)
    journal.acknowledge(3)
    journal.close()
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(Defect, match="3 was acknowledged"):
        Journal(tmp_path, SOURCE)


def test_a_segment_torn_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    batches = in_batches(chained(3), [2, 1])
    write(tmp_path, batches[:1], segment_bytes=1)
    for content in (b"", b'{"source":"/gat', bytes(40)):
        (tmp_path / f"{3:020d}.journal").write_bytes(content)
        assert [s for s, _, _ in entries(tmp_path)] == [1, 2]
    write(tmp_path, batches[1:], segment_bytes=1)
    assert [s for s, _, _ in entries(tmp_path)] == [1, 2, 3]


def test_a_first_segment_torn_while_it_was_made(tmp_path: Path) -> None:
    (tmp_path / f"{1:020d}.journal").write_bytes(b'{"sou')
    write(tmp_path, in_batches(chained(1), [1]))
    assert [s for s, _, _ in entries(tmp_path)] == [1]


def test_what_changes_under_a_running_process_is_refused(tmp_path: Path) -> None:
    write(tmp_path, in_batches(chained(3), [3]))
    journal = Journal(tmp_path, SOURCE)
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"sequence":2', b'"sequence":7'))
    with pytest.raises(Defect):
        list(journal.read(1))
    journal.close()


# ------------------------------------------------------------------------------------------------ the disk


def test_a_full_disk_takes_back_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = in_batches(chained(5), [2, 2, 1])
    journal = Journal(tmp_path, SOURCE)
    journal.keep(batches[0])
    write_really = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 300:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_really(file, bytes(data)[:-250])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Overloaded, match="No space left"):
        journal.keep(batches[1])
    assert journal.head == Head(2, batches[0][1][1])
    monkeypatch.undo()
    journal.keep(batches[1])
    journal.close()
    assert entries(tmp_path) == [r for b in batches[:2] for r in b]


def test_a_full_disk_makes_no_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = in_batches(chained(3), [2, 1])
    journal = Journal(tmp_path, SOURCE, 1)
    journal.keep(batches[0])

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Overloaded):
        journal.keep(batches[1])
    monkeypatch.undo()
    journal.keep(batches[1])
    journal.close()
    assert [s for s, _, _ in entries(tmp_path)] == [1, 2, 3]


def test_a_failed_sync_is_no_overload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, SOURCE)

    def failing(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(Defect, match="fsync failed"):
        journal.keep(next(iter(in_batches(chained(1), [1]))))
    journal.close()
