"""Files that look like one person's: found when somebody is seen, kept for a person to decide. Shell over the tables.

Who is seen is written first and then compared with whom the same day of birth, or telephone number, lists: of two who
are seen at the same time at least the later one meets the other. What is written of a pair does not depend on which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.ports import Row, Select, Tables
from schemas.likeness import Person, likeness, shard_of
from schemas.tables import Upsert, Write

LISTS: Mapping[str, tuple[str, str]] = {
    "patients_by_birth_date": ("birth_date", "birth-date"),
    "patients_by_phone": ("phone", "phone"),
}
"""Table → (its partition, what the proposals of it are called)."""
LISTED_MAX = 5000
"""Of one list: some 3,000 living Egyptians are born on a day."""
KNOWN_MAX = 100_000


class Alike:
    """The comparing of one worker. Raises Transient: look again."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._known: set[tuple[str, ...]] = set()

    async def look(self, writes: Sequence[Write]) -> int:
        """Compare those whom `writes`, which are applied, say anything new of; how many rows that gave."""
        seen: dict[tuple[str, ...], Upsert] = {}
        for write in writes:
            if isinstance(write, Upsert) and write.table in LISTS:
                name = (write.table, *map(str, write.key.values()), *(str(write.columns[n]) for n in _SAID))
                if name not in self._known:
                    seen[name] = write
        if not seen:
            return 0
        lists = list(dict.fromkeys((w.table, w.key[LISTS[w.table][0]]) for w in seen.values()))
        answers = await self._tables.select_many(
            [Select(table, {LISTS[table][0]: value}, limit=LISTED_MAX) for table, value in lists]
        )
        listed = dict(zip(lists, answers, strict=True))
        found = [p for w in seen.values() for p in proposals(w, listed[w.table, w.key[LISTS[w.table][0]]])]
        await self._tables.apply(found)
        if len(self._known) + len(seen) > KNOWN_MAX:
            self._known.clear()
        self._known |= seen.keys()
        return len(found)


_SAID = ("patient_name", "birth", "sex")


def proposals(seen: Upsert, listed: Sequence[Row]) -> list[Write]:
    """Of somebody, with whom a list has beside them: everyone who is like them. Which pairs are found at last must not
    depend on who came first, so there is no limit but the list's own.
    """
    origin = LISTS[seen.table][1]
    own, key = _person(seen.columns, seen.key), seen.key["patient_key"]
    found: list[Write] = []
    for row in listed:
        other = row["patient_key"]
        alike = None if other == key else likeness(own, _person(row, row))
        if alike is None:
            continue
        pair = sorted((key, other))
        where = {"shard": shard_of(*pair), "patient_key": pair[0], "other_key": pair[1], "origin": origin}
        # Grows whenever one of the two is seen anew, and is the same whoever of them came last
        timestamp = seen.columns["seen_offset"] + row["seen_offset"]
        columns = {"score": alike.score, "why": list(alike.why)}
        found.append(Upsert("link_proposals", where, columns, timestamp))
    return found


def _person(columns: Mapping[str, Any], key: Mapping[str, Any]) -> Person:
    return Person(columns["patient_name"], columns["birth"] or "", columns["sex"] or "", key.get("phone", ""))
