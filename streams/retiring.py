"""The end of a patient secret's replacement: from then on the previous secret is needed for nothing.

The steps, while nobody else makes patient keys (infra.patient_secret):
1. the tables take in what the log has beyond them
2. every number in them gets its alias, on the log and in the tables
3. what people and hospitals decided of files is looked at: a file whose number stands nowhere (a merge of a number that
   never came with anything) would not be found by it any more, and that is for a person to accept
4. the newest secret alone is the archive's
A crash before step 4 changes nothing but that some aliases are there; all can be done again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from infra import faults
from infra.patient_keys import PatientKeys
from infra.patient_secret import settle
from infra.ports import Log, Row, Select, Tables
from schemas import overlay
from schemas.errors import Invalid
from schemas.identity import generation_of
from schemas.patient_keys import Keys, PatientSecrets
from schemas.tables import STATE_KEYSPACE
from streams.apply import VIEWS, Projector
from streams.corrections import corrected, key_of
from streams.dispatch import TOPICS_FOLLOWED
from streams.effects import aliased
from streams.pack_rows import COLUMNS, TABLE, PackRow
from streams.projections.orders import issuer_of
from streams.projections.patients import alias_row
from streams.replay import BATCH, Ends, Replay
from streams.timers import Publish

Key = Callable[[Keys], str]
"""Key of the file of a number, made of what a row says."""
DECISIONS: Mapping[str, Callable[[Row], bool]] = {
    "patient_links": lambda row: bool(row["holds"]),
    "treating_by_person": lambda row: not row["ended"],
}
"""Tables of what was decided of files, which name these alone, and whether a row still holds."""


@dataclass
class Retired:
    """What was found."""

    numbers: int = 0
    aliases: int = 0
    """Those that were new."""
    nameless: set[str] = field(default_factory=set)
    """Files that decisions name, and whose numbers stand nowhere."""


class Retiring:
    """One end of a replacement. `secrets`: both."""

    def __init__(
        self, kafka: Log, tables: Tables, projector: Projector, publish: Publish, secrets: PatientSecrets
    ) -> None:
        """`tables`: the read models that answer, filled by `projector`."""
        if secrets.previous is None:
            raise Invalid("patient-secret", "there is no previous patient secret")
        self._log, self._tables, self._projector, self._publish = kafka, tables, projector, publish
        self._secrets, self._previous = secrets, secrets.previous
        self._keys = PatientKeys(tables, secrets)
        self.done = Retired()

    async def run(self, leave: int = 0) -> Retired:
        """Steps 1 to 4. `leave`: so many nameless files are accepted; raises Invalid where there are more, and
        Transient.
        """
        # Step 1
        await Replay(self._log, self._projector, begin=await self._positions()).run()
        # Step 2
        batch: list[Key] = []
        self.done.nameless = await self._decided()
        async for key in self._numbers():
            batch.append(key)
            if len(batch) == BATCH:
                await self._alias(batch)
                batch = []
        await self._alias(batch)
        faults.point("retiring.aliased")
        # Step 3
        if self.done.nameless:
            await self._spare()
        if len(self.done.nameless) > leave:
            raise Invalid(
                "patient-secret-nameless",
                f"links and statements name {len(self.done.nameless)} files whose numbers came with nothing else: under"
                " the new secret alone such a number would begin a file of its own. Keep both secrets until they have"
                f" come, or say --leave {len(self.done.nameless)}",
            )
        # Step 4
        newest = PatientSecrets(self._secrets.newest)
        await settle(self._tables.with_keyspace(STATE_KEYSPACE), newest.fingerprints)
        return self.done

    async def _positions(self) -> Ends:
        rows = await self._tables.select(Select("projection_positions", {"projection": VIEWS}))
        found: Ends = {topic: {} for topic in TOPICS_FOLLOWED}
        for row in rows:
            found[row["topic"]][row["partition"]] = row["next_offset"]
        return found

    async def _decided(self) -> set[str]:
        """Files that decisions name."""
        return {
            row["patient_key"]
            for table, holds in DECISIONS.items()
            async for row in self._tables.scan(table)
            if holds(row)
        }

    async def _alias(self, batch: list[Key]) -> None:
        files, aliases = await self._keys.made(lambda keys: [key(keys) for key in batch])
        await self._publish(aliased(aliases))
        await self._tables.apply([alias_row(alias, key) for alias, key in aliases.items()])
        self.done.nameless -= set(files)
        self.done.numbers += len(batch)
        self.done.aliases += len(aliases)

    async def _spare(self) -> None:
        """Files that have an alias already, and those of a secret before the previous one, are not nameless now."""
        old = {key for key in self.done.nameless if generation_of(key) != self._previous.generation}
        self.done.nameless -= old
        newest = f"k{self._secrets.newest.generation}:"
        async for row in self._tables.scan("patient_aliases"):
            if row["alias"].startswith(newest):
                self.done.nameless.discard(row["patient_key"])

    async def _numbers(self) -> AsyncIterator[Key]:
        """Every number of the read models."""
        async for row in self._tables.scan(TABLE):
            pack = PackRow.read(row)
            yield partial(key_of, pack.summary.study, pack.study_uid)
        async for row in self._tables.scan("studies"):
            if row["overlay"] and overlay.decode(row["overlay"]).patient_key:
                async for key in self._corrected(row):
                    yield key
        async for row in self._tables.scan("orders"):
            issuer = issuer_of(row["issuer"], row["site"])
            yield _said(row["patient_id"], issuer, row["birth_date"], row["sex"], row["study_uid"])
        async for row in self._tables.scan("patients"):
            for number in (row["stated_id"], *(row["stated_locals"] or ())):
                yield _said(number, row["stated_locals_issuer"], row["stated_birth_date"], row["stated_sex"], "")

    async def _corrected(self, row: Row) -> AsyncIterator[Key]:
        uid = row["study_uid"]
        found = await self._tables.select(Select(TABLE, {"study_uid": uid}, COLUMNS, limit=1))
        if found:
            first = PackRow.read(found[0])
            study = corrected(first.summary.study, overlay.decode(row["overlay"]).study, first.site)
            yield partial(key_of, study, uid)


def _said(patient_id: Any, issuer: Any, birth_date: Any, sex: Any, study_uid: Any) -> Key:
    def key(keys: Keys) -> str:
        return keys.of(
            patient_id=patient_id or "",
            issuer=issuer or "",
            birth_date=birth_date or "",
            sex=sex or "",
            study_uid=study_uid or "",
        ).value

    return key
