"""Files that look like one person's: what is proposed follows from what both say at last, whatever came in between."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from infra.memory import MemoryTables
from infra.ports import Row, Select
from schemas.errors import Transient
from schemas.likeness import MIRROR, SHARDS
from schemas.tables import Upsert, Write
from streams.alike import LISTS, Alike
from tests.unit.streams.samples import run

A, B, C = ("k1:" + c * 43 for c in "abc")
MONA, MONA_TOO, SAMIRA = "Hassan^Mona=حسن^منى", "=حسن^منى", "Ibrahim^Samira"
BORN, OTHER_DAY = "19800101", "19750630"


def seen(key: str, name: str, offset: int, born: str = BORN) -> Upsert:
    return Upsert("patients", {"patient_key": key}, {"patient_name": name, "birth_date": born, "sex": "F"}, offset)


def ordered(key: str, name: str, stamp: int, phone: str = "01001234567") -> Upsert:
    columns = {"patient_name": name, "birth": BORN, "sex": "F", "stamp": stamp}
    return Upsert("patients_by_phone", {"phone": phone, "patient_key": key}, columns, stamp)


async def apply(tables: MemoryTables, writes: Sequence[Write]) -> int:
    """As `streams.apply` does."""
    n = await Alike(tables).look(writes)
    await tables.apply([w for w in writes if w.table not in LISTS])
    return n


def rows(tables: MemoryTables, first: int = 0) -> list[Row]:
    return [r for n in range(SHARDS) for r in run(tables.select(Select("link_proposals", {"shard": n + first})))]


def after(*batches: Sequence[Write]) -> MemoryTables:
    tables = MemoryTables()
    for batch in batches:
        run(apply(tables, batch))
    return tables


async def _contents(tables: MemoryTables) -> dict[str, list[Any]]:
    names = ("link_proposals", *LISTS, "patients")
    return {n: sorted([str(r) async for r in tables.scan(n, writetime=True)]) for n in names}


def contents(tables: MemoryTables) -> dict[str, list[Any]]:
    return run(_contents(tables))


def test_the_same_pairs_in_any_order() -> None:
    writes = [seen(A, MONA, 3), seen(B, MONA_TOO, 9), seen(C, SAMIRA, 1)]
    found = [contents(after(*([w] for w in order))) for order in permutations(writes)]
    assert all(f == found[0] for f in found)
    ((row),) = rows(after(writes))
    assert (row["patient_key"], row["other_key"], row["origin"], row["shared"]) == (A, B, "birth-date", BORN)
    assert (row["score"], row["why"], row["stamp"]) == (100, ["name", "birth-date"], 12)


def test_the_greater_key_finds_its_pairs_too() -> None:
    tables = after([seen(A, MONA, 3), seen(B, MONA_TOO, 9)])
    (row,) = rows(tables, MIRROR)
    assert (row["patient_key"], row["other_key"], row["score"]) == (B, A, 100)


def test_a_telephone_number_proposes_too() -> None:
    (row,) = rows(after([ordered(B, MONA, 0)], [ordered(A, MONA, 1)]))
    assert (row["origin"], row["why"]) == ("phone", ["name", "birth-date", "phone"])


def test_who_is_seen_again_as_before_is_not_compared_again() -> None:
    tables = after([seen(A, MONA, 3)], [seen(B, MONA_TOO, 9)])
    assert run(apply(tables, [seen(B, MONA_TOO, 17)])) == 0


@pytest.mark.parametrize(
    "change",
    [seen(B, SAMIRA, 11), seen(B, MONA, 11, born=OTHER_DAY), seen(B, "", 11), seen(A, MONA, 11, born="")],
)
def test_a_proposal_goes_when_the_files_are_no_longer_alike(change: Upsert) -> None:
    tables = after([seen(A, MONA, 3)], [seen(B, MONA_TOO, 9)], [change])
    assert rows(tables) == rows(tables, MIRROR) == []
    back = seen(change.key["patient_key"], MONA, 12)
    run(apply(tables, [back]))
    assert len(rows(tables)) == len(rows(tables, MIRROR)) == 1


def test_what_another_list_proposes_stays() -> None:
    tables = after([seen(A, MONA, 3), seen(B, MONA, 4)], [ordered(A, MONA, 5), ordered(B, MONA, 6)])
    assert [r["origin"] for r in rows(tables)] == ["birth-date", "phone"]
    run(apply(tables, [seen(B, SAMIRA, 9)]))
    assert [r["origin"] for r in rows(tables)] == ["phone"]


def test_tables_are_the_same_however_the_facts_were_interleaved_and_cut_into_batches() -> None:
    """Each patient's facts keep their order, as in their partition; all else is free, and any batch may come again."""
    for seed in range(150):
        dice = random.Random(seed)  # noqa: S311 (repeatable)
        names = (MONA, MONA_TOO, SAMIRA, "Hassan^Muna", "")
        files = {
            key: [seen(key, dice.choice(names), 3 * n + k, dice.choice((BORN, OTHER_DAY))) for n in range(4)]
            for k, key in enumerate((A, B, C))
        }
        plain = after(*([w] for writes in files.values() for w in writes))
        left = {key: list(writes) for key, writes in files.items()}
        mixed: list[Write] = []
        while any(left.values()):
            mixed.append(left[dice.choice([k for k, ws in left.items() if ws])].pop(0))
        tables = MemoryTables()
        at = 0
        while at < len(mixed):
            size = dice.randint(1, 4)
            run(apply(tables, mixed[at : at + size]))
            at += size if dice.random() < 0.7 else 0  # or again from where it began, as after a crash
        assert contents(tables) == contents(plain), seed


class Meeting(MemoryTables):
    """Somebody else's writes come in between a read of the lists and the write of what was found."""

    meanwhile: Sequence[Write] = ()

    async def apply(self, writes: Sequence[Write]) -> None:
        if any(w.table == "link_proposals" for w in writes):
            others, self.meanwhile = self.meanwhile, ()
            if others:
                await super().apply(others)
        await super().apply(writes)


def test_a_file_that_changes_meanwhile_is_compared_again() -> None:
    tables = Meeting()
    run(apply(tables, [seen(A, MONA, 3)]))
    samira = {"patient_name": SAMIRA, "birth": BORN, "sex": "F", "stamp": 8}
    tables.meanwhile = [Upsert("patients_by_birth_date", {"birth_date": BORN, "patient_key": A}, samira, 8)]
    run(apply(tables, [seen(B, MONA, 5)]))
    assert rows(tables) == []


def test_files_that_never_rest_are_left_to_another_try() -> None:
    class Restless(MemoryTables):
        stamp = 10

        async def apply(self, writes: Sequence[Write]) -> None:
            await super().apply(writes)
            Restless.stamp += 1
            row = {"patient_name": MONA, "birth": BORN, "sex": "F", "stamp": self.stamp}
            key = {"birth_date": BORN, "patient_key": A}
            await super().apply([Upsert("patients_by_birth_date", key, row, self.stamp)])

    with pytest.raises(Transient):
        run(apply(Restless(), [seen(B, MONA, 5)]))
