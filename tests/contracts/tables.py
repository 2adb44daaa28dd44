"""What every implementation of the Tables port promises. `test_tables.py` says how each is made."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.active_views import activate, active_keyspace
from infra.ports import Row, Select, Tables
from schemas.errors import Defect
from schemas.tables import VIEWS_KEYSPACE, Delete, Table, Upsert, Write

T = TypeVar("T")

SHAPES = Table(
    "shapes",
    {
        "key": "text",
        "token": "int",
        "newest": "text",
        "number": "bigint",
        "words": "text",
        "small": "int",
        "big": "bigint",
        "raw": "blob",
        "moment": "timestamp",
        "tags": "frozen<set<text>>",
        "order_of": "frozen<list<text>>",
        "yes": "boolean",
    },
    ("key", "token"),
    ("newest", "number"),
    frozenset({"newest"}),
    about="Every type, a composite partition key, both clustering orders: the suite's own table.",
)
DEFINITIONS = (SHAPES,)
_EXAMPLES = itertools.count()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def row_key(key: str, newest: str = "a", number: int = 0) -> dict[str, Any]:
    return {"key": key, "token": 1, "newest": newest, "number": number}


class TablesContract(ABC):
    @abstractmethod
    @pytest.fixture
    def tables(self) -> Tables:
        """The port with the tables of `schemas.tables` and DEFINITIONS, empty or used under other keys."""

    @pytest.fixture
    def key(self, request: pytest.FixtureRequest) -> str:
        """A partition of the test's own."""
        return f"{request.node.name}-{datetime.now(UTC).timestamp()}"

    def one(self, tables: Tables, key: str) -> Row:
        (row,) = run(tables.select(Select("shapes", {"key": key, "token": 1})))
        return row

    # ------------------------------------------------------------------------------------------------ values

    def test_every_type_comes_back_as_it_went_in(self, tables: Tables, key: str) -> None:
        columns = {
            "words": "محمد 🩻",
            "small": -(2**31),
            "big": 2**63 - 1,
            "raw": b"\x00\xff",
            "moment": datetime(2025, 3, 1, 8, 15, 0, 123000, UTC),
            "tags": frozenset({"MR", "CT"}),
            "order_of": ["b", "a", "b"],
            "yes": False,
        }
        run(tables.apply([Upsert("shapes", row_key(key), columns, 1)]))
        assert self.one(tables, key) == row_key(key) | columns

    def test_times_are_utc_to_the_millisecond(self, tables: Tables, key: str) -> None:
        cairo = timezone(timedelta(hours=3))
        run(tables.apply([Upsert("shapes", row_key(key), {"moment": datetime(2025, 3, 1, 2, 0, 0, 999, cairo)}, 1)]))
        assert self.one(tables, key)["moment"] == datetime(2025, 2, 28, 23, 0, tzinfo=UTC)
        run(tables.apply([Upsert("shapes", row_key(key), {"moment": 1_740_783_600_000}, 2)]))
        assert self.one(tables, key)["moment"] == datetime(2025, 2, 28, 23, 0, tzinfo=UTC)

    def test_empty_is_not_absent(self, tables: Tables, key: str) -> None:
        empty = {"words": "", "raw": b"", "tags": frozenset(), "order_of": []}
        run(tables.apply([Upsert("shapes", row_key(key), empty, 1)]))
        row = self.one(tables, key)
        assert {c: row[c] for c in empty} == empty
        assert row["small"] is None
        assert row["tags"] is not None

    @pytest.mark.parametrize(
        ("column", "value"),
        [("words", 1), ("small", 2**31), ("big", "1"), ("tags", 1), ("none_such", 1)],
    )
    def test_a_value_of_another_type_is_a_defect(self, tables: Tables, key: str, column: str, value: Any) -> None:
        with pytest.raises(Defect):
            run(tables.apply([Upsert("shapes", row_key(key), {column: value}, 1)]))

    def test_a_write_names_the_whole_key(self, tables: Tables, key: str) -> None:
        for bad in ({"key": key}, {"key": key, "token": 1, "newest": "a"}, row_key(key) | {"words": "x"}):
            with pytest.raises(Defect):
                run(tables.apply([Upsert("shapes", bad, {}, 1)]))
        with pytest.raises(Defect):
            run(tables.apply([Delete("shapes", {"key": key, "token": 1}, 1)]))
        with pytest.raises(Defect):
            run(tables.apply([Upsert("none_such", {"key": key}, {}, 1)]))

    # ------------------------------------------------------------------------------------------------ timestamps

    def test_the_higher_timestamp_wins_cell_by_cell(self, tables: Tables, key: str) -> None:
        writes = [
            Upsert("shapes", row_key(key), {"words": "late", "small": 1}, 9),
            Upsert("shapes", row_key(key), {"words": "early", "big": 2}, 3),
        ]
        run(tables.apply(writes))
        row = self.one(tables, key)
        assert (row["words"], row["small"], row["big"]) == ("late", 1, 2)

    def test_the_same_write_twice_is_one(self, tables: Tables, key: str) -> None:
        write = Upsert("shapes", row_key(key), {"words": "x", "tags": {"a", "b"}}, 0)
        run(tables.apply([write]))
        before = self.scanned(tables, key)
        run(tables.apply([write, write]))
        assert self.scanned(tables, key) == before
        assert before[0]["writetime(words)"] == 0

    def test_a_column_not_named_is_left_alone(self, tables: Tables, key: str) -> None:
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "x"}, 1)]))
        run(tables.apply([Upsert("shapes", row_key(key), {"small": 1}, 5)]))
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "y"}, 2)]))
        assert self.one(tables, key)["words"] == "y"

    def test_none_removes_a_value_as_of_its_timestamp(self, tables: Tables, key: str) -> None:
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "x", "small": 1}, 1)]))
        run(tables.apply([Upsert("shapes", row_key(key), {"words": None}, 5)]))
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "between"}, 4)]))
        assert self.one(tables, key)["words"] is None
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "after"}, 6)]))
        assert self.one(tables, key)["words"] == "after"

    def test_a_row_of_keys_alone_is_there(self, tables: Tables, key: str) -> None:
        run(tables.apply([Upsert("shapes", row_key(key), {}, 1)]))
        assert self.one(tables, key)["newest"] == "a"

    def test_a_delete_takes_what_is_older_or_as_old(self, tables: Tables, key: str) -> None:
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "x"}, 5)]))
        run(tables.apply([Delete("shapes", row_key(key), 4)]))
        assert self.one(tables, key)["words"] == "x"
        run(tables.apply([Upsert("shapes", row_key(key), {"small": 7}, 6)]))
        run(tables.apply([Delete("shapes", row_key(key), 5)]))
        assert (self.one(tables, key)["words"], self.one(tables, key)["small"]) == (None, 7)
        run(tables.apply([Delete("shapes", row_key(key), 6)]))
        assert run(tables.select(Select("shapes", {"key": key, "token": 1}))) == []
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "too late"}, 6)]))
        assert run(tables.select(Select("shapes", {"key": key, "token": 1}))) == []
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "again"}, 7)]))
        assert self.one(tables, key)["words"] == "again"

    @settings(
        max_examples=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def test_the_order_of_arrival_does_not_matter(self, tables: Tables, key: str, data: st.DataObject) -> None:
        """Any writes, ties included, in any order, in one call or several: the same cells with the same times."""
        prefix = f"{key}-{next(_EXAMPLES)}"
        value = st.none() | st.sampled_from(["", "a", "b", "ab"])
        columns = st.dictionaries(st.sampled_from(["words", "tags"]), value, max_size=2)

        def write(at: int, columns: dict[str, Any] | None, key: str) -> Write:
            if columns is None:
                return Delete("shapes", row_key(key), at)
            if columns.get("tags") is not None:
                columns = columns | {"tags": set(columns["tags"])}
            return Upsert("shapes", row_key(key), columns, at)

        plan = data.draw(st.lists(st.tuples(st.integers(0, 3), st.none() | columns), min_size=1, max_size=6))
        shuffled = data.draw(st.permutations(plan))
        cut = data.draw(st.integers(0, len(plan)))
        run(tables.apply([write(t, c, prefix + "-1") for t, c in plan]))
        run(tables.apply([write(t, c, prefix + "-2") for t, c in shuffled[:cut]]))
        run(tables.apply([write(t, c, prefix + "-2") for t, c in shuffled[cut:]]))
        answers = [
            run(tables.select(Select("shapes", {"key": prefix + suffix, "token": 1}))) for suffix in ("-1", "-2")
        ]
        assert [{**r, "key": ""} for r in answers[0]] == [{**r, "key": ""} for r in answers[1]]
        assert answers[0] == self.expected(plan, prefix + "-1")

    def expected(self, plan: list[tuple[int, dict[str, Any] | None]], key: str) -> list[Row]:
        """Cassandra's rules, written a second time: what is newest; at a tie a removal, then the greater bytes."""
        deleted = max((t for t, c in plan if c is None), default=-1)
        upserts = [(t, c) for t, c in plan if c is not None and t > deleted]
        if not upserts:
            return []
        row: Row = dict.fromkeys(SHAPES.columns) | row_key(key)
        for name in ("words", "tags"):
            told = [(t, c[name]) for t, c in upserts if name in c]
            newest = [v for t, v in told if t == max(t for t, _ in told)]
            if newest and None not in newest:
                row[name] = max(newest) if name == "words" else max(map(frozenset, newest), key=_set_bytes)
        return [row]

    # ------------------------------------------------------------------------------------------------ reads

    @pytest.fixture
    def filled(self, tables: Tables, key: str) -> str:
        keys = [("b", 2), ("a", 1), ("c", 3), ("b", 1), ("a", -1), ("b", 10)]
        run(tables.apply([Upsert("shapes", row_key(key, n, i), {"words": f"{n}{i}"}, 1) for n, i in keys]))
        return key

    def words(self, tables: Tables, query: Select) -> list[str]:
        return [row["words"] for row in run(tables.select(query))]

    def test_rows_come_in_clustering_order(self, tables: Tables, filled: str) -> None:
        where = {"key": filled, "token": 1}
        assert self.words(tables, Select("shapes", where)) == ["c3", "b1", "b2", "b10", "a-1", "a1"]
        assert self.words(tables, Select("shapes", where, limit=2)) == ["c3", "b1"]

    def test_bounds_and_prefixes(self, tables: Tables, filled: str) -> None:
        where = {"key": filled, "token": 1}
        assert self.words(tables, Select("shapes", where | {"newest": "b"})) == ["b1", "b2", "b10"]
        assert self.words(tables, Select("shapes", where, lower=("newest", "b"))) == ["c3", "b1", "b2", "b10"]
        assert self.words(tables, Select("shapes", where, upper=("newest", "b"))) == ["a-1", "a1"]
        inner = where | {"newest": "b"}
        both = Select("shapes", inner, lower=("number", 2), upper=("number", 10), limit=5)
        assert self.words(tables, both) == ["b2"]
        assert self.words(tables, Select("shapes", inner | {"number": 10})) == ["b10"]
        assert self.words(tables, Select("shapes", where | {"token": 2})) == []

    def test_only_the_columns_asked_for(self, tables: Tables, filled: str) -> None:
        query = Select("shapes", {"key": filled, "token": 1}, ("words", "number"), limit=1)
        assert run(tables.select(query)) == [{"words": "c3", "number": 3}]

    def test_a_row_without_the_columns_asked_for_is_there(self, tables: Tables, filled: str) -> None:
        query = Select("shapes", {"key": filled, "token": 1}, ("small",), limit=1)
        assert run(tables.select(query)) == [{"small": None}]

    @pytest.mark.parametrize(
        "query",
        [
            Select("shapes", {"key": "x"}),
            Select("shapes", {"key": "x", "token": 1, "number": 1}),
            Select("shapes", {"key": "x", "token": 1, "words": "x"}),
            Select("shapes", {"key": "x", "token": 1}, lower=("number", 1)),
            Select("shapes", {"key": "x", "token": 1}, ("none_such",)),
            Select("none_such", {"key": "x"}),
        ],
    )
    def test_a_query_is_of_one_partition(self, tables: Tables, query: Select) -> None:
        with pytest.raises(Defect):
            run(tables.select(query))

    def test_many_partitions_answer_in_order(self, tables: Tables, key: str) -> None:
        count = 150
        run(tables.apply([Upsert("shapes", row_key(f"{key}{i}"), {"small": i}, i) for i in range(count)]))
        order = [*range(count), 3, 3]
        queries = [Select("shapes", {"key": f"{key}{i}", "token": 1}, ("small",)) for i in order]
        assert run(tables.select_many(queries)) == [[{"small": i}] for i in order]
        assert run(tables.select_many([])) == []

    @pytest.mark.parametrize("size", [0, 100, 400, 5_000])
    def test_many_small_partitions_at_once(self, tables: Tables, key: str, size: int) -> None:
        """Whatever the adapter sends together, a server with default limits takes."""
        full = {"words": "x" * size, "small": 1, "big": 2, "raw": b"", "yes": True, "tags": {"a"}, "order_of": ["b"]}
        run(tables.apply([Upsert("shapes", row_key(f"{key}{i}"), full, i) for i in range(300)]))
        queries = [Select("shapes", {"key": f"{key}{i}", "token": 1}, ("words",)) for i in range(300)]
        assert run(tables.select_many(queries)) == [[{"words": "x" * size}]] * 300

    def test_a_partition_of_many_and_large_rows(self, tables: Tables, key: str) -> None:
        """More rows than a page, more bytes than a batch."""
        count = 1500
        writes: list[Write] = [Upsert("shapes", row_key(key, "a", i), {"words": f"{i}"}, i) for i in range(count)]
        writes += [Upsert("shapes", row_key(key, "z", i), {"raw": bytes([i]) * 300_000}, i) for i in range(5)]
        run(tables.apply(writes))
        assert self.words(tables, Select("shapes", {"key": key, "token": 1, "newest": "a"})) == [
            f"{i}" for i in range(count)
        ]
        large = run(tables.select(Select("shapes", {"key": key, "token": 1, "newest": "z"}, ("raw",))))
        assert [row["raw"] for row in large] == [bytes([i]) * 300_000 for i in range(5)]

    def scanned(self, tables: Tables, key: str) -> list[Row]:
        async def rows() -> list[Row]:
            return [row async for row in tables.scan("shapes", writetime=True) if row["key"] == key]

        return run(rows())

    def test_scan_gives_every_row_with_its_write_times(self, tables: Tables, key: str) -> None:
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "x", "tags": {"a"}}, 4)]))
        run(tables.apply([Upsert("shapes", row_key(key), {"small": 1, "words": "y"}, 6)]))
        empty = dict.fromkeys(SHAPES.columns)
        assert self.scanned(tables, key) == [
            empty
            | row_key(key)
            | {"words": "y", "small": 1, "tags": frozenset({"a"})}
            | {"writetime(words)": 6, "writetime(small)": 6, "writetime(tags)": 4}
        ]

    def test_scan_without_write_times(self, tables: Tables, filled: str) -> None:
        async def rows() -> list[Row]:
            return [row async for row in tables.scan("shapes") if row["key"] == filled]

        found = run(rows())
        assert len(found) == 6
        assert all(row.keys() == SHAPES.columns.keys() for row in found)

    # ------------------------------------------------------------------------------------------------ keyspaces

    def test_another_keyspace_is_another_world(self, tables: Tables, key: str) -> None:
        other = tables.with_keyspace("contract_other")
        run(tables.apply([Upsert("shapes", row_key(key), {"words": "here"}, 1)]))
        run(other.apply([Upsert("shapes", row_key(key), {"words": "there"}, 1)]))
        assert (self.one(tables, key)["words"], self.one(other, key)["words"]) == ("here", "there")
        assert other.keyspace == "contract_other"
        assert other.with_keyspace(tables.keyspace).keyspace == tables.keyspace

    def test_the_active_keyspace(self, tables: Tables) -> None:
        state = "contract_other"
        assert run(active_keyspace(tables, state)) == VIEWS_KEYSPACE
        run(activate(tables, "sijil_views_2", state))
        assert run(active_keyspace(tables, state)) == "sijil_views_2"
        run(activate(tables, VIEWS_KEYSPACE, state))
        assert run(active_keyspace(tables, state)) == VIEWS_KEYSPACE

    def test_empty_apply(self, tables: Tables) -> None:
        run(tables.apply([]))


def _set_bytes(items: frozenset[str]) -> bytes:
    """A frozen set as Cassandra writes it: count, then each item with its length, sorted."""
    parts = [len(items).to_bytes(4, "big")]
    for item in sorted(items):
        parts += [len(item.encode()).to_bytes(4, "big"), item.encode()]
    return b"".join(parts)
