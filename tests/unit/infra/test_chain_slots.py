"""Hashes by sequence on disk: what was put is there, in order, whatever the order it came in."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import chain_slots
from infra.chain_slots import SEQUENCE_MAX, Slots
from schemas.chain import Links
from schemas.envelope import GENESIS


def links(sequence: int, content: str = "") -> Links:
    return Links(sequence, f"{sequence:064x}"[:-1] + (content or "a"), GENESIS)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 300) | st.integers(1, SEQUENCE_MAX), max_size=50))
def test_any_order(tmp_path: Path, sequences: list[int]) -> None:
    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    slots = Slots(folder)
    seen: set[int] = set()
    for sequence in sequences:
        assert slots.put("/a", links(sequence)) is (True if sequence not in seen else None)
        seen.add(sequence)
        assert slots.put("/a", links(sequence, "b")) is False
    assert list(slots.records("/a")) == [links(s) for s in sorted(seen)]
    slots.close()


def test_more_sources_than_open_files(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    sources = [f"/gateway/{n}/1" for n in range(chain_slots.FILES_OPEN_MAX + 50)]
    for sequence in (2, 1):
        for source in sources:
            assert slots.put(source, links(sequence))
    assert slots.sources == sorted(sources)
    assert all([r.sequence for r in slots.records(source)] == [1, 2] for source in sources)
    slots.close()
