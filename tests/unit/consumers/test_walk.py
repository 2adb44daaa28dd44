"""Lists read by pages and merged, over any data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.api import walk
from consumers.api.walk import Deadline, Group, Partition, Reader, merged, walked
from infra.memory import MemoryTables
from infra.ports import Row, Select
from schemas.tables import Upsert

STUDIES = st.lists(
    st.tuples(
        st.sampled_from(["202401", "202402"]),
        st.integers(0, 3),
        st.sampled_from(["01", "02", "1001", "100101", "11"]),
        st.integers(1, 40),
    ),
    max_size=60,
    unique_by=lambda s: s[3],
)
"""Month, shard, rest of the moment, number."""
TABLE = "studies_by_name_token"


def filled(studies: Sequence[tuple[str, int, str, int]]) -> MemoryTables:
    tables = MemoryTables()
    writes = [
        Upsert(TABLE, {"token": "a", "month": m, "shard": s, "moment": m + t, "study_uid": f"1.{n}"}, {}, 1)
        for m, s, t, n in studies
    ]
    asyncio.run(tables.apply(writes))
    return tables


def collected(chunks: AsyncIterator[list[Row]]) -> list[str]:
    async def collect() -> list[str]:
        return [r["study_uid"] async for chunk in chunks for r in chunk]

    return asyncio.run(collect())


@settings(deadline=None)
@given(STUDIES, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_a_walk_gives_every_row_once_in_order(
    studies: list[tuple[str, int, str, int]], first_page: int, next_page: int, known: bool
) -> None:
    tables = filled(studies)

    async def groups() -> AsyncIterator[Group]:
        for month in ("202402", "202401"):
            where = {"token": "a", "month": month}
            shards = [Partition(Select(TABLE, {**where, "shard": n}), first_page) for n in range(4)]
            yield Group(shards, 5 if known else 0)

    with patch.object(walk, "NEXT_PAGE", next_page):
        found = collected(walked(Reader(tables), groups(), Deadline(60), 10))
    by_uid = sorted(studies, key=lambda s: f"1.{s[3]}")
    assert found == [f"1.{s[3]}" for s in sorted(by_uid, key=lambda s: s[0] + s[2], reverse=True)]


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
        found = collected(merged(Reader(tables), [partition], Deadline(60)))
    assert found == [f"{n:03}" for _, n in sorted(rows)]


def test_bounds_hold_on_every_page() -> None:
    tables = MemoryTables()
    dates = [f"202401{d:02}" for d in range(1, 31)]
    writes = [
        Upsert("studies_by_patient_id", {"patient_id": "P", "moment": d + "1015", "study_uid": f"1.{n}"}, {}, 1)
        for d in dates
        for n in range(3)
    ]
    asyncio.run(tables.apply(writes))
    lower, upper = ("moment", "20240110"), ("moment", "20240120\U0010ffff")
    select = Select("studies_by_patient_id", {"patient_id": "P"}, lower=lower, upper=upper)
    with patch.object(walk, "NEXT_PAGE", 4):
        found = collected(merged(Reader(tables), [Partition(select, 4)], Deadline(60)))
    assert len(found) == 33


def test_a_deadline_stops_a_walk_and_is_told() -> None:
    tables = filled([("202401", 0, "01", n) for n in range(1, 30)])
    deadline = Deadline(-1)
    select = Select(TABLE, {"token": "a", "month": "202401", "shard": 0})
    assert collected(merged(Reader(tables), [Partition(select)], deadline)) == []
    assert deadline.passed


def test_reads_are_counted() -> None:
    reader = Reader(filled([("202401", 0, "01", n) for n in range(1, 30)]))
    select = Select(TABLE, {"token": "a", "month": "202401", "shard": 0})
    collected(merged(reader, [Partition(select)], Deadline(60)))
    assert (reader.reads, reader.rows) == (1, 29)
