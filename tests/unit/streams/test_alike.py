"""Files that look like one person's: found by whoever is seen last, the same whoever that is."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from infra.memory import MemoryTables
from infra.ports import Select
from schemas.likeness import SHARDS
from schemas.tables import Upsert
from streams.alike import Alike
from tests.unit.streams.samples import run

A, B, C = ("k1:" + c * 43 for c in "abc")


def seen(key: str, name: str, offset: int, table: str = "patients_by_birth_date", **where: str) -> Upsert:
    columns = {"patient_name": name, "birth": "19800101", "sex": "F", "seen_offset": offset}
    return Upsert(table, {**(where or {"birth_date": "19800101"}), "patient_key": key}, columns, offset)


def proposed(writes: list[Upsert]) -> list[dict[str, Any]]:
    tables = MemoryTables()
    alike = Alike(tables)
    for write in writes:
        run(tables.apply([write]))
        run(alike.look([write]))
    return [r for n in range(SHARDS) for r in run(tables.select(Select("link_proposals", {"shard": n})))]


def test_the_same_pairs_in_any_order() -> None:
    writes = [seen(A, "Hassan^Mona=حسن^منى", 3), seen(B, "=حسن^منى", 9), seen(C, "Ibrahim^Samira", 1)]
    found = [proposed(list(order)) for order in permutations(writes)]
    assert all(f == found[0] for f in found)
    ((row),) = found[0]
    assert (row["patient_key"], row["other_key"], row["origin"]) == (A, B, "birth-date")
    assert (row["score"], row["why"]) == (100, ["name", "birth-date"])


def test_a_telephone_number_proposes_too() -> None:
    where = {"phone": "01001234567"}
    writes = [seen(k, "Hassan^Mona", n, "patients_by_phone", **where) for n, k in enumerate((B, A))]
    (row,) = proposed(writes)
    assert (row["origin"], row["why"]) == ("phone", ["name", "birth-date", "phone"])


def test_who_is_seen_again_as_before_is_not_compared_again() -> None:
    tables = MemoryTables()
    alike = Alike(tables)
    for offset, key in enumerate((A, B)):
        write = seen(key, "Hassan^Mona", offset)
        run(tables.apply([write]))
        assert run(alike.look([write])) == offset
    assert run(alike.look([seen(B, "Hassan^Mona", 7)])) == 0
