"""A batch of facts → read models. Shell over the ports, shared by the worker and the rebuild.

Applying any batch again, also split otherwise, ends in the same rows: see `streams.projections.studies`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from infra.patient_keys import PatientKeys
from infra.ports import Select, Stored, Tables
from schemas.envelope import decode
from schemas.errors import Invalid
from schemas.events import PackStored
from schemas.pack import Manifest
from schemas.patient_keys import Keys, PatientSecrets
from schemas.tables import Upsert, Write
from streams import corrections, counting
from streams.alike import LISTS, Alike
from streams.arrivals import Folded, fold, fresh
from streams.counting import Counted, counted, tallied
from streams.dispatch import BY_STUDY, CORRECTIONS, project
from streams.facts import Fact
from streams.limits import within
from streams.material import Material
from streams.pack_rows import COLUMNS, TABLE, PackRow
from streams.projections.studies import day_of_study
from streams.times import Times
from streams.to_read import ToRead

VIEWS = "views"
"""Name of the read models' projection in `projection_positions`."""

INSTANCES_MAX = 4096
"""Instances of the packs projected at once: bounds the manifests in memory (tens of KB each, inflated)."""
VOCABULARY = frozenset({"name_tokens", "name_trigrams", "name_token_months", "sites_sending"})
SAID_MAX = 200_000
"""Rows of the vocabulary that are remembered as written: a name's words come again with every study of that name."""


def fact_of(stored: Stored) -> Fact:
    """A record decoded. Raises UnknownEventType, or Invalid with the reason for the dead letters."""
    place = stored.position
    envelope = decode(place.topic, stored.key, stored.headers, stored.value)
    return Fact(place.topic, place.partition, place.offset, stored.timestamp_ms, envelope.id, envelope.event)


@dataclass
class Applied:
    """What applying a batch gave."""

    studies: list[Folded] = field(default_factory=list)
    """The studies that packs arrived for."""
    failed: list[tuple[Fact, Invalid]] = field(default_factory=list)
    """Facts for the dead letters."""
    writes: int = 0
    aliases: dict[str, str] = field(default_factory=dict)
    """Key of a number under the newest secret → key of its file, where nobody knows that yet."""


class Projector:
    """Applies facts to one keyspace."""

    def __init__(self, tables: Tables, material: Material, secrets: PatientSecrets) -> None:
        self._tables, self._material, self._keys = tables, material, PatientKeys(tables, secrets)
        self._said: set[tuple[str, ...]] = set()
        self._alike, self._to_read, self._times = Alike(tables), ToRead(tables), Times(tables)

    async def apply(self, facts: Sequence[Fact]) -> Applied:
        """Facts of one topic, each partition's by offset. Durable on return. Raises Transient: apply all again."""
        applied = Applied()
        for part in bounded(facts):
            writes = await self._others([f for f in part if type(f.event) not in BY_STUDY | CORRECTIONS], applied)
            writes += await self._corrections([f for f in part if type(f.event) in CORRECTIONS], applied)
            writes += await self._arrivals([f for f in part if type(f.event) in BY_STUDY], applied)
            news, said = self._unsaid(writes)
            applied.writes += await self._alike.look(news)
            await self._tables.apply([w for w in news if w.table not in LISTS])
            applied.writes += await self._to_read.look(news)
            applied.writes += await self._times.look(news)
            if len(self._said) + len(said) > SAID_MAX:
                self._said.clear()
            self._said |= said
            applied.writes += len(news)
        return applied

    def _unsaid(self, writes: Sequence[Write]) -> tuple[list[Write], set[tuple[str, ...]]]:
        """The writes without rows of the vocabulary that are there already, and the names of those that are new.

        Such a row says nothing but that it is there, so one write of it is as good as many.
        """
        news: list[Write] = []
        said: set[tuple[str, ...]] = set()
        for write in writes:
            if write.table in VOCABULARY:
                name = (write.table, *map(str, write.key.values()))
                if name in self._said or name in said:
                    continue
                said.add(name)
            news.append(write)
        return news, said

    async def advance(self, last: Iterable[Stored]) -> None:
        """Note how far each partition is. `last`: the last record of each, also one that failed. Raises Transient."""
        await self._tables.apply([_position(record) for record in last])

    async def _others(self, facts: Sequence[Fact], applied: Applied) -> list[Write]:
        materials = await self._material.wanted(f.event for f in facts)

        def projected(keys: Keys) -> tuple[list[Write], list[tuple[Fact, Invalid]]]:
            writes: list[Write] = []
            failed: list[tuple[Fact, Invalid]] = []
            for fact, material in zip(facts, materials, strict=True):
                try:
                    if isinstance(material, Invalid):
                        raise material
                    writes += within(project(fact, material, keys))
                except Invalid as error:
                    failed.append((fact, error))
            return writes, failed

        (writes, failed), aliases = await self._keys.made(projected)
        applied.failed += failed
        applied.aliases |= aliases
        return writes

    async def _corrections(self, facts: Sequence[Fact], applied: Applied) -> list[Write]:
        """With all corrections of their studies, and what these began with."""
        studies: dict[str, list[Fact]] = {}
        for fact in facts:
            studies.setdefault(fact.event.key(), []).append(fact)
        writes: list[Write] = []
        for uid, found in studies.items():
            old, first = await self._tables.select_many(
                (
                    Select(
                        corrections.TABLE,
                        {"study_uid": uid},
                        corrections.COLUMNS,
                        upper=("record_offset", found[0].offset),
                    ),
                    Select(TABLE, {"study_uid": uid}, COLUMNS, limit=1),
                )
            )
            materials = await self._material.wanted(f.event for f in found)
            before, begun = [corrections.Row.read(row) for row in old], PackRow.read(first[0]) if first else None
            folded, aliases = await self._keys.made(partial(corrections.fold, found, before, materials, begun))
            applied.aliases |= aliases
            writes += folded.writes
            applied.failed += folded.failed
        return writes

    async def _arrivals(self, facts: Sequence[Fact], applied: Applied) -> list[Write]:
        studies: dict[str, list[Fact]] = {}
        for fact in facts:
            studies.setdefault(fact.event.key(), []).append(fact)
        queries = [
            Select(TABLE, {"study_uid": uid}, COLUMNS, upper=("record_offset", found[0].offset))
            for uid, found in studies.items()
        ]
        rows = await self._tables.select_many(queries) if queries else []
        before = [[PackRow.read(row) for row in found] for found in rows]
        wanted = [f for found, old in zip(studies.values(), before, strict=True) for f in fresh(found, old)]
        fetched = await self._material.manifests(wanted)
        manifests: dict[str, dict[int, Manifest | Invalid]] = {uid: {} for uid in studies}
        for fact, manifest in zip(wanted, fetched, strict=True):
            manifests[fact.event.key()][fact.offset] = manifest

        def every(keys: Keys) -> list[Folded]:
            return [
                fold(found, old, manifests[uid], keys)
                for (uid, found), old in zip(studies.items(), before, strict=True)
            ]

        folded, aliases = await self._keys.made(every)
        applied.aliases |= aliases
        writes = [write for one in folded for write in one.writes]
        applied.failed += [failure for one in folded for failure in one.failed]
        arrived = [one for one in folded if one.arrivals]
        self._remember(arrived)
        applied.studies += arrived
        return writes + await self._counts(arrived)

    async def _counts(self, arrived: Sequence[Folded]) -> list[Write]:
        firsts = [folded.arrivals[0] for folded in arrived]
        new = [Counted(f.fact.partition, f.fact.offset, day_of_study(f.row)) for f in firsts if len(f.rows) == 1]
        tallies = tallied(new)
        queries = [Select(counting.TABLE, dict(key), counting.COLUMNS) for key in tallies]
        return counted(tallies, await self._tables.select_many(queries)) if queries else []

    def _remember(self, studies: Iterable[Folded]) -> None:
        for arrival in (a for s in studies for a in s.arrivals):
            self._material.remember(arrival.event.bucket, arrival.event.manifest_key, arrival.row.summary.study)


def bounded(facts: Sequence[Fact]) -> Iterator[Sequence[Fact]]:
    """`facts` in parts of at most INSTANCES_MAX instances, or of one pack that has more."""
    start = held = 0
    for n, fact in enumerate(facts):
        more = fact.event.instances if isinstance(fact.event, PackStored) else 0
        if held and held + more > INSTANCES_MAX:
            yield facts[start:n]
            start, held = n, 0
        held += more
    if start < len(facts):
        yield facts[start:]


def _position(record: Stored) -> Upsert:
    place = record.position
    key = {"projection": VIEWS, "topic": place.topic, "partition": place.partition}
    columns = {"next_offset": place.offset + 1, "log_time": record.timestamp_ms}
    return Upsert("projection_positions", key, columns, place.offset)
