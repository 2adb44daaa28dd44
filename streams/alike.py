"""Files that look like one person's: found from what both files say at last, kept for a person to decide. Shell.

What is proposed is a function of the lists of those born on a day and those with a telephone number, and these of the
log; so a rebuild, which meets the facts in another order, ends in the same rows and write times. The steps:
1. the lists are changed: somebody who is said to be born on another day leaves the list where they were
2. who changed there is compared with all of their list; pairs that are alike are written, with the sum of both files'
   stamps for a timestamp, which grows with either; pairs that no longer are go at the timestamp they were written with
3. a pair of which one changed in between is compared again: of two who change at once at least one meets the other as
   it stays
4. only then is `patients` written, which step 1 is measured by: what is applied again after a crash is found again
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from infra.ports import Row, Select, Tables
from schemas.errors import Transient
from schemas.likeness import MIRROR, Person, likeness, shard_of
from schemas.tables import Delete, Upsert, Write

BY_BIRTH_DATE = "patients_by_birth_date"
LISTS: Mapping[str, tuple[str, str]] = {
    BY_BIRTH_DATE: ("birth_date", "birth-date"),
    "patients_by_phone": ("phone", "phone"),
}
"""Table → (its partition, what the proposals of it are called)."""
LISTED_MAX = 5000
"""Of one list: some 3,000 living Egyptians are born on a day."""
ROUNDS_MAX = 10
"""So often the files of a batch may change under the comparing before it is begun anew."""
TABLE = "link_proposals"
SAID = ("patient_name", "birth_date", "sex")
"""What a file is compared by, as the columns of `patients` are called."""


class Place(NamedTuple):
    """Somebody in a list."""

    table: str
    shared: str
    """The birth date or the number."""
    patient_key: str


class Alike:
    """The comparing of one worker. Raises Transient: look again."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def look(self, writes: Sequence[Write]) -> int:
        """Compare those whom `writes`, which are not applied yet, say anything new of; how many rows that gave."""
        lists = [w for w in writes if w.table in LISTS] + await self._moved(writes)
        # Step 1
        await self._tables.apply(lists)
        # Step 2
        places = dict.fromkeys(Place(w.table, w.key[LISTS[w.table][0]], w.key["patient_key"]) for w in lists)
        return len(lists) + await self._compare(list(places))

    async def _moved(self, writes: Sequence[Write]) -> list[Write]:
        seen = [w for w in writes if isinstance(w, Upsert) and w.table == "patients" and "birth_date" in w.columns]
        keys = list(dict.fromkeys(w.key["patient_key"] for w in seen))
        rows = await self._tables.select_many([Select("patients", {"patient_key": k}, SAID) for k in keys])
        said: dict[str, Mapping[str, Any]] = {k: found[0] if found else {} for k, found in zip(keys, rows, strict=True)}
        lists: list[Write] = []
        for write in seen:
            key = write.key["patient_key"]
            lists += moved(key, said[key], write.columns, write.timestamp)
            said[key] = write.columns
        return lists

    async def _compare(self, places: Sequence[Place]) -> int:
        written = 0
        for _ in range(ROUNDS_MAX):
            if not places:
                return written
            lists = await self._listed(places)
            standing = await self._standing(places)
            found = {p: proposals(p, lists[p]) for p in places}
            writes: list[Write] = [w for p in places for w in found[p].values()]
            writes += [w for p in places for w in withdrawn(p, found[p], standing[p.patient_key])]
            await self._tables.apply([row for w in writes for row in (w, mirrored(w))])
            written += 2 * len(writes)
            # Step 3
            met = [p for p in places if found[p]]
            again = await self._listed(met)
            places = [p for p in met if _stamps(p, found[p], lists[p]) != _stamps(p, found[p], again[p])]
        raise Transient("files changed while they were compared")

    async def _listed(self, places: Iterable[Place]) -> dict[Place, dict[str, Row]]:
        """Patient key → row of everybody in each one's list, themselves included."""
        places = list(places)
        lists = list(dict.fromkeys(p[:2] for p in places))
        queries = [Select(table, {LISTS[table][0]: shared}, limit=LISTED_MAX) for table, shared in lists]
        # A long list may end before oneself
        queries += [Select(p.table, {LISTS[p.table][0]: p.shared, "patient_key": p.patient_key}) for p in places]
        answers = await self._tables.select_many(queries)
        listed = {at: {r["patient_key"]: r for r in rows} for at, rows in zip(lists, answers, strict=False)}
        own = zip(places, answers[len(lists) :], strict=True)
        return {p: listed[p[:2]] | {r["patient_key"]: r for r in rows} for p, rows in own}

    async def _standing(self, places: Iterable[Place]) -> dict[str, list[Row]]:
        """Patient key → its proposals, from both sides."""
        keys = list(dict.fromkeys(p.patient_key for p in places))
        queries = [
            Select(TABLE, {"shard": shard, "patient_key": k})
            for k in keys
            for shard in (shard_of(k), shard_of(k) + MIRROR)
        ]
        answers = await self._tables.select_many(queries)
        return {k: answers[2 * n] + answers[2 * n + 1] for n, k in enumerate(keys)}


def moved(patient_key: str, before: Mapping[str, Any], now: Mapping[str, Any], offset: int) -> list[Write]:
    """How the lists by birth date change when a file that said `before` says `now`; nothing when it says the same."""
    if all(before.get(n) == now[n] for n in SAID):
        return []
    writes: list[Write] = []
    was, born = before.get("birth_date") or "", now["birth_date"] if now["patient_name"] else ""
    if was and was != born:
        writes.append(Delete(BY_BIRTH_DATE, {"birth_date": was, "patient_key": patient_key}, offset))
    if born:
        key = {"birth_date": born, "patient_key": patient_key}
        said = {"patient_name": now["patient_name"], "birth": born, "sex": now["sex"], "stamp": offset}
        writes.append(Upsert(BY_BIRTH_DATE, key, said, offset))
    return writes


def proposals(place: Place, listed: Mapping[str, Row]) -> dict[str, Upsert]:
    """Of somebody, by the other's key, everyone in their list who is like them. Which pairs are found at last must not
    depend on who came first, so there is no limit but the list's own.
    """
    own = listed.get(place.patient_key)
    if own is None:
        return {}
    found: dict[str, Upsert] = {}
    for other, row in listed.items():
        alike = None if other == place.patient_key else likeness(_person(own), _person(row))
        if alike is None:
            continue
        stamp = own["stamp"] + row["stamp"]
        columns = {"score": alike.score, "why": list(alike.why), "stamp": stamp}
        found[other] = Upsert(TABLE, _key(place, *sorted((place.patient_key, other))), columns, stamp)
    return found


def withdrawn(place: Place, found: Iterable[str], standing: Sequence[Row]) -> list[Delete]:
    """Proposals of somebody and a list that stand and are no longer found, at the timestamps they were written with:
    a newer one, which somebody else may write meanwhile, stays.
    """
    named = (LISTS[place.table][1], place.shared)
    return [
        Delete(TABLE, _key(place, *sorted((row["patient_key"], row["other_key"]))), row["stamp"])
        for row in standing
        if (row["origin"], row["shared"]) == named and not {row["patient_key"], row["other_key"]} & set(found)
    ]


def mirrored(write: Write) -> Write:
    """The same row where the greater key finds it."""
    one, other = write.key["patient_key"], write.key["other_key"]
    key = {**write.key, "shard": shard_of(other) + MIRROR, "patient_key": other, "other_key": one}
    if isinstance(write, Delete):
        return Delete(write.table, key, write.timestamp)
    return Upsert(write.table, key, write.columns, write.timestamp)


def _key(place: Place, one: str, other: str) -> dict[str, Any]:
    origin = LISTS[place.table][1]
    return {
        "shard": shard_of(one),
        "patient_key": one,
        "other_key": other,
        "origin": origin,
        "shared": place.shared,
    }


def _stamps(place: Place, found: Iterable[str], listed: Mapping[str, Row]) -> list[int | None]:
    return [listed[k]["stamp"] if k in listed else None for k in (place.patient_key, *found)]


def _person(row: Row) -> Person:
    return Person(row["patient_name"], row["birth"] or "", row["sex"] or "", row.get("phone", ""))
