"""Staff as the log says them: the last word holds, however often it is told."""

from __future__ import annotations

import asyncio
from itertools import permutations
from typing import Any

from infra.memory import MemoryTables
from infra.ports import Row, Select
from schemas.events import PersonChanged, PersonLeft, PersonRegistered
from schemas.people import Person
from schemas.sounds import sound_tokens
from streams.dispatch import project, wanted
from tests.unit.streams.samples import fact

SAID: dict[str, Any] = {
    "person_id": "dr-7",
    "subspecialties": ["394914008"],
    "stated_by": "person:1",
    "recorded": "2025-03-01T08:00:00Z",
    "bucket": "sijil-documents",
    "document_key": "people/by-id/dr-7/1.json",
    "document_size": 1,
    "document_sha256": "a" * 64,
}
STORY = (
    PersonRegistered(**SAID, version=1, active=True, roles=["doctor"], sites=["CAI-1", "ALX-1"]),
    PersonChanged(**SAID, version=2, active=True, roles=["doctor", "radiologist"], sites=["ALX-1"]),
    PersonLeft(**SAID, version=3, active=False, roles=["doctor", "radiologist"], sites=["ALX-1"]),
)

LEFT = 2
PERSON = Person(
    person_id="dr-7",
    version=1,
    practitioner={"name": [{"text": "د. أحمد عبد الله"}, {"given": ["Ahmed"], "family": "Abdallah"}, "no name"]},
    stated_by="person:1",
    recorded="2025-03-01T08:00:00Z",
)


def rows_after(order: tuple[int, ...]) -> tuple[list[Row], list[Row]]:
    tables = MemoryTables()

    async def run() -> tuple[list[Row], list[Row]]:
        for n in order:
            material = None if n == LEFT else PERSON
            await tables.apply(project(fact(STORY[n], n + 1), material))
        by_id = await tables.select(Select("people", {"person_id": "dr-7"}))
        return by_id, await tables.select(Select("people_by_site", {"site": "CAI-1"}))

    return asyncio.run(run())


def test_the_last_word_holds_in_any_order_and_told_twice() -> None:
    (row,), (of_cairo,) = expected = rows_after((0, 1, 2))
    assert (row["active"], row["roles"], row["sites"]) == (False, ["doctor", "radiologist"], ["ALX-1"])
    assert (row["version"], of_cairo["person_id"]) == (3, "dr-7")
    assert [wanted(e) is None for e in STORY] == [False, False, True], "that somebody has left hangs on no document"
    for order in permutations(range(3)):
        assert rows_after(order + order) == expected


def test_the_words_of_their_names_lead_to_them_as_written_and_as_they_sound() -> None:
    tables = MemoryTables()

    async def run() -> dict[str, list[Row]]:
        for n in (1, 0, 1):  # told twice, the later one first
            await tables.apply(project(fact(STORY[n], n + 1), PERSON))
        found = {}
        for prefix in ("اح", "عب", "ah", "~a"):
            found[prefix] = await tables.select(Select("staff_by_name", {"prefix": prefix}))
        return found

    found = asyncio.run(run())
    tokens = {prefix: [r["token"] for r in rows] for prefix, rows in found.items()}
    assert (tokens["اح"], tokens["عب"], tokens["ah"]) == (["احمد"], ["عبدالله"], ["ahmed"])
    assert set(sound_tokens("احمد")) == set(sound_tokens("Ahmed")) <= set(tokens["~a"])
    assert {(r["person_id"], r["version"]) for rows in found.values() for r in rows} == {("dr-7", 2)}
