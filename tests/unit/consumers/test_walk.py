"""Lists read by pages and merged, over any data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.api import walk
from consumers.api.walk import Deadline, Partition, merged, walked
from infra.memory import MemoryTables
from infra.ports import Row, Select
from schemas.tables import Upsert

STUDIES = st.lists(
    st.tuples(
        st.sampled_from(["20240101", "20240102"]),
        st.integers(0, 3),
        st.sampled_from(["0", "1", "10", "101", "2"]),
        st.integers(1, 40),
    ),
    max_size=60,
    unique_by=lambda s: s[3],
)
"""Day, shard, time, number."""


def filled(studies: Sequence[tuple[str, int, str, int]]) -> MemoryTables:
    tables = MemoryTables()
    writes = [
        Upsert("studies_by_day", {"day": d, "shard": s, "study_time": t, "study_uid": f"1.{n}"}, {"study_date": d}, 1)
        for d, s, t, n in studies
    ]
    asyncio.run(tables.apply(writes))
    return tables


def collected(rows: AsyncIterator[Row]) -> list[str]:
    async def collect() -> list[str]:
        return [r["study_uid"] async for r in rows]

    return asyncio.run(collect())


@settings(deadline=None)
@given(STUDIES, st.integers(1, 4), st.integers(1, 4))
def test_a_walk_gives_every_row_once_in_order(
    studies: list[tuple[str, int, str, int]], first_page: int, next_page: int
) -> None:
    tables = filled(studies)

    async def groups() -> AsyncIterator[list[Select]]:
        for day in ("20240102", "20240101"):
            yield [Select("studies_by_day", {"day": day, "shard": n}) for n in range(4)]

    with patch.object(walk, "NEXT_PAGE", next_page), patch.object(walk, "FIRST_PAGE", first_page):
        found = collected(walked(tables, groups(), Deadline(60)))
    by_uid = sorted(studies, key=lambda s: f"1.{s[3]}")
    by_time = sorted(by_uid, key=lambda s: s[2], reverse=True)
    assert found == [f"1.{s[3]}" for s in sorted(by_time, key=lambda s: s[0], reverse=True)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), unique_by=lambda r: r[1]), st.integers(1, 5))
def test_an_ascending_list_is_read_to_its_end(rows: list[tuple[str, int]], page: int) -> None:
    tables = MemoryTables()
    writes = [
        Upsert("studies_by_accession", {"accession": "A", "accession_issuer": i, "study_uid": f"{n:03}"}, {}, 1)
        for i, n in rows
    ]
    asyncio.run(tables.apply(writes))
    with patch.object(walk, "NEXT_PAGE", page):
        partition = Partition(Select("studies_by_accession", {"accession": "A"}), page)
        found = collected(merged(tables, [partition], Deadline(60)))
    assert found == [f"{n:03}" for _, n in sorted(rows)]


def test_bounds_hold_on_every_page() -> None:
    tables = MemoryTables()
    dates = [f"202401{d:02}" for d in range(1, 31)]
    writes = [
        Upsert("studies_by_patient_id", {"patient_id": "P", "study_date": d, "study_uid": f"1.{n}"}, {}, 1)
        for d in dates
        for n in range(3)
    ]
    asyncio.run(tables.apply(writes))
    lower, upper = ("study_date", "20240110"), ("study_date", "20240120\0")
    select = Select("studies_by_patient_id", {"patient_id": "P"}, lower=lower, upper=upper)
    with patch.object(walk, "NEXT_PAGE", 4):
        found = collected(merged(tables, [Partition(select, 4)], Deadline(60)))
    assert len(found) == 33


def test_a_deadline_stops_a_walk_and_is_told() -> None:
    tables = filled([("20240101", 0, "1", n) for n in range(1, 30)])
    deadline = Deadline(-1)
    select = Select("studies_by_day", {"day": "20240101", "shard": 0})
    assert collected(merged(tables, [Partition(select)], deadline)) == []
    assert deadline.passed
