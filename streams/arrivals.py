"""study.pack-stored of one study, a batch of them at once: which are new, what they write, what they decide.

Pure: rows and manifests come in as values. `fold` serves the worker and the rebuild, `decide` the worker alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import Invalid
from schemas.events import PackStored
from schemas.identity import PatientKey
from schemas.pack import Manifest
from schemas.patient_keys import Keys
from schemas.tables import Write
from streams import rejection_notes
from streams.completeness import arrived
from streams.effects import Emit
from streams.facts import Fact
from streams.limits import within
from streams.pack_rows import HASH_BYTES, PackRow
from streams.projections.studies import project, summarise


@dataclass(frozen=True)
class Arrival:
    """A new pack of a study, and all packs of it up to there."""

    fact: Fact
    event: PackStored
    patient: PatientKey
    rows: tuple[PackRow, ...]
    notes: list[tuple[str, str]]
    """SOP Instance UID and code of its rejection notes."""

    @property
    def row(self) -> PackRow:
        """Its own."""
        return self.rows[-1]


@dataclass(frozen=True)
class Folded:
    """What a batch of one study's packs says."""

    arrivals: tuple[Arrival, ...]
    writes: list[Write]
    failed: tuple[tuple[Fact, Invalid], ...]
    """Facts for the dead letters; the others stand without them."""


def fresh(facts: Sequence[Fact], before: Sequence[PackRow]) -> list[Fact]:
    """Facts whose manifests are needed: those of packs that the study does not have yet. Facts by offset."""
    known = {row.pack_id for row in before}
    found = []
    for fact in facts:
        if _event(fact).pack_id not in known:
            known.add(_event(fact).pack_id)
            found.append(fact)
    return found


def fold(
    facts: Sequence[Fact], before: Sequence[PackRow], manifests: Mapping[int, Manifest | Invalid], keys: Keys
) -> Folded:
    """`facts`: one study's, by offset. `before`: its rows below the first of them. `manifests`: by offset of the fact,
    or why there is none.

    A pack_id is the identity of a pack: its record coming again (a gateway that was not told of the first) is no news.
    """
    rows = tuple(before)
    arrivals: list[Arrival] = []
    writes: list[Write] = []
    failed: list[tuple[Fact, Invalid]] = []
    for fact in facts:
        event = _event(fact)
        try:
            if (same := next((r for r in rows if r.pack_id == event.pack_id), None)) is not None:
                if same.summary.pack_sha256 != bytes.fromhex(event.pack_sha256)[:HASH_BYTES]:
                    raise Invalid("pack-id-reused")
                continue
            manifest = manifests.get(fact.offset)
            if manifest is None:  # the first record under its pack_id failed, so this one was not fetched
                manifest = Invalid("pack-id-failed")
            if isinstance(manifest, Invalid):
                raise manifest
            projected = project(fact, manifest, keys)
            written = within(projected.writes)
            notes = rejection_notes.found(manifest)
        except Invalid as error:
            failed.append((fact, error))
            continue
        rows = (*rows, projected.row)
        arrivals.append(Arrival(fact, event, projected.patient, rows, notes))
        writes += written
    if arrivals:
        writes += summarise(facts[0].partition, rows, arrivals[0].row.offset)
    return Folded(tuple(arrivals), writes, tuple(failed))


def decide(folded: Folded, quiet_ms: int, known: Collection[int]) -> list[Emit]:
    """Events that the arrivals decide; `known` are the offsets at which the study is known to have been completed."""
    emits: list[Emit] = []
    known = set(known)
    for arrival in folded.arrivals:
        emits += arrived(arrival.fact.partition, arrival.rows, arrival.event, arrival.patient, quiet_ms, known)
        emits += rejection_notes.rejections(arrival.event, arrival.fact.offset, arrival.fact.log_ms, arrival.notes)
    return emits


def _event(fact: Fact) -> PackStored:
    if not isinstance(fact.event, PackStored):
        raise TypeError(f"{type(fact.event).__name__} is no arrival")
    return fact.event
