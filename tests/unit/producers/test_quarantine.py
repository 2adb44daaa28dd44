"""Refused bytes are kept, and never more than so many."""

from __future__ import annotations

from pathlib import Path

from producers.body import Held
from producers.quarantine import Quarantine


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_bytes_are_kept_under_their_id(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"
    assert Quarantine(folder, 1000).keep("id-1", Held((b"ab", b"cd")))
    assert (folder / "id-1.bin").read_bytes() == b"abcd"
    assert (folder / "id-1.bin").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_oldest_go_first(tmp_path: Path) -> None:
    it = Quarantine(tmp_path, 250)
    for n in range(5):
        assert it.keep(f"id-{n}", Held((bytes(100),)))
    assert names(tmp_path) == ["id-3.bin", "id-4.bin"]


def test_what_is_larger_than_the_folder_is_not_kept(tmp_path: Path) -> None:
    it = Quarantine(tmp_path, 250)
    assert it.keep("id-1", Held((bytes(100),)))
    assert not it.keep("id-2", Held((bytes(251),)))
    assert names(tmp_path) == ["id-1.bin"]


def test_a_folder_that_refuses_does_not_raise(tmp_path: Path) -> None:
    it = Quarantine(tmp_path, 250)
    assert it.keep("id-1", Held((b"x",)))
    assert not it.keep("id-1", Held((b"y",)))
