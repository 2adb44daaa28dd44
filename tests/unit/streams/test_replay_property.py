"""The promise of the read models: any batches and any redelivery end in the same rows and write times."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.memory import MemoryObjects, MemoryTables
from schemas.errors import Transient
from schemas.events import (
    AccessGranted,
    AccessUsed,
    Event,
    InstanceRejected,
    PackArchived,
    PatientSeen,
    PersonChanged,
    PersonLeft,
    ReportIssued,
    Shown,
    StudyReopened,
)
from schemas.identity import patient_key
from schemas.people import Person, encode_person
from schemas.tables import Write
from schemas.topics import topic_of
from streams.apply import Projector, fact_of
from streams.arrivals import decide
from streams.material import Material
from tests.unit.streams.samples import BUCKET, DOCUMENTS, SECRET, SECRETS, T0, Pack, dump, pack_id, run, sha, stored

QUIET_MS = 60_000
KEY = patient_key(SECRET, patient_id="P-77", issuer="S", birth_date="", sex="", study_uid="1.2.3").value

instances = st.lists(
    st.tuples(st.sampled_from("123"), st.sampled_from("4567"), st.sampled_from("xy")), min_size=1, max_size=5
)
headers = st.fixed_dictionaries(
    {
        "t00100010": st.sampled_from(["Hassan^Mona", "عبد الله^محمد", ""]),
        "t00100020": st.sampled_from(["P-77", "", "29001011234567", "0"]),
        "t00080020": st.sampled_from(["20250228", "", "2025.02.28"]),
        "t00080050": st.sampled_from(["A-1", ""]),
        "t0008103E": st.sampled_from(["axial", "coronal"]),
    }
)
packs = st.builds(
    Pack,
    n=st.integers(0, 12),
    instances=instances,
    study=st.sampled_from(["1.2.3", "1.2.4"]),
    site=st.sampled_from(["CAIRO-1", "VAN-2"]),
    header=headers,
)
gaps_ms = st.integers(0, 2 * QUIET_MS)


def person(n: int) -> bytes:
    """The document of a person event: whoever it is has another name each time."""
    names = [{"text": text} for text in ("منى حسن", "Mona Hassan", f"Name {n}")[n % 2 :]]
    said: dict[str, Any] = {"stated_by": "person:1", "recorded": "2025-03-01T08:00:00Z"}
    return encode_person(Person(person_id=f"dr-{n % 2}", version=n + 1, practitioner={"name": names}, **said))


def others(n: int) -> list[Event]:
    """One of each other kind, about the same study."""
    access = f"0195{n:04x}-0000-7000-8000-000000000000"
    who: dict[str, Any] = {
        "access_id": access,
        "actor": "http:127.0.0.1",
        "role": "local",
        "purpose": "TREAT",
        "action": "retrieve",
        "occurred": "2025-03-01T08:00:00Z",
    }
    return [
        InstanceRejected(
            rejection_id=access,
            reason="not-dicom",
            site="S",
            gateway="/gateway/S/1",
            door="stow",
            received="2025-03-01T08:00:00Z",
            size=1,
            study_uid="1.2.3",
        ),
        PackArchived(
            pack_id=pack_id(n),
            study_uid="1.2.3",
            bucket=BUCKET,
            pack_key="k",
            version_id="v",
            size=1,
            sha256=sha("a"),
            manifest_key="m",
            manifest_version_id="w",
            manifest_sha256=sha("b"),
            retain_until="2030-03-01T00:00:00Z",
            policy="study-date-5y",
        ),
        ReportIssued(
            report_id=pack_id(9),
            version=n % 3 + 1,
            status="final",
            study_uids=["1.2.3", "1.2.4"],
            site="S",
            issued="2025-03-01T08:00:00Z",
            bucket=DOCUMENTS,
            document_key="r",
            document_size=n,
            document_sha256=sha(str(n)),
        ),
        (PersonLeft if n % 4 == 3 else PersonChanged)(
            person_id=f"dr-{n % 2}",
            version=n + 1,
            active=n % 4 != 3,
            roles=["doctor"],
            sites=[f"S{n % 3}"],
            subspecialties=[],
            stated_by="person:1",
            recorded="2025-03-01T08:00:00Z",
            bucket=DOCUMENTS,
            document_key=f"p{n}",
            document_size=len(person(n)),
            document_sha256=hashlib.sha256(person(n)).hexdigest(),
        ),
        AccessGranted(**who, study_uid="1.2.3", shown=[Shown(study_uid="1.2.3", patient_key=KEY)]),
        AccessUsed(**who, study_uid="1.2.3", patient_key=KEY, uses=n + 1, last_used="2025-03-01T08:00:00Z"),
        StudyReopened(study_uid="1.2.3", revision=n + 1, pack_id=pack_id(n), offset=n),
    ]


class TornTables(MemoryTables):
    """A database that goes away in the middle of a batch."""

    left: int | None = None
    """Writes until then; None: it stays."""

    async def apply(self, writes: Sequence[Write]) -> None:
        await super().apply(writes if self.left is None else writes[: self.left])
        if self.left is not None:
            raise Transient("gone in the middle")


class World:
    """A log of one partition per topic, made once; applied as often as one likes."""

    def __init__(self, made: Sequence[tuple[Pack, int]]) -> None:
        self.objects = MemoryObjects()
        self.topics: dict[str, list[Event]] = {}
        self.times: list[int] = []
        now = T0
        used = set()
        for pack, gap in made:
            if pack.n in used:  # a record that comes again: the event of the first
                event = next(
                    e for e in self.topics["sijil.study.arrivals"] if getattr(e, "pack_id", "") == pack_id(pack.n)
                )
            else:
                event = pack.put(self.objects)
            used.add(pack.n)
            self.objects.put(DOCUMENTS, f"p{pack.n}", person(pack.n), sha256=hashlib.sha256(person(pack.n)).hexdigest())
            now += gap
            self.times.append(now)
            self.add(event)
            for other in others(pack.n):
                if topic_of(other) != "sijil.study.arrivals":
                    self.add(other)
        self.derive()

    def add(self, event: Event) -> None:
        self.topics.setdefault(topic_of(event), []).append(event)

    def log(self, topic: str) -> list:  # type: ignore[type-arg]
        times = self.times if topic == "sijil.study.arrivals" else [T0] * len(self.topics[topic])
        return [stored(e, n, at_ms=t) for n, (e, t) in enumerate(zip(self.topics[topic], times, strict=True))]

    def derive(self) -> None:
        """What a worker would emit goes on the log once."""

        async def derived() -> list[Event]:
            projector = self.projector(MemoryTables())
            applied = await projector.apply([fact_of(s) for s in self.log("sijil.study.arrivals")])
            return [e.event for folded in applied.studies for e in decide(folded, QUIET_MS, ())]

        for event in run(derived()):
            self.add(event)

    def projector(self, tables: MemoryTables) -> Projector:
        return Projector(tables, Material(self.objects, documents=DOCUMENTS, missing_s=0), SECRETS)

    async def apply(self, tables: TornTables, topics: Sequence[str], cuts: Sequence[tuple[int, int, int]]) -> None:
        """Apply every topic in batches (first, length, writes until the database goes away), then what is left."""
        projector = self.projector(tables)
        for topic in topics:
            log = self.log(topic)
            done = 0
            for start, length, torn in cuts:
                first = min(start, done)  # never over what was not delivered yet
                batch = log[first : first + length]
                if not batch:
                    continue
                facts = [fact_of(s) for s in batch]
                if torn:
                    tables.left = torn
                    with pytest.raises(Transient):
                        await projector.apply(facts)
                    tables.left = None
                    continue  # delivered again, perhaps split otherwise
                assert not (await projector.apply(facts)).failed
                await projector.advance([batch[-1]])
                done = max(done, first + len(batch))
            if log[done:]:
                assert not (await projector.apply([fact_of(s) for s in log[done:]])).failed
                await projector.advance([log[-1]])


@settings(max_examples=60, deadline=None)
@given(
    made=st.lists(st.tuples(packs, gaps_ms), min_size=1, max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(0, 40)), max_size=10),
    shuffled=st.randoms(use_true_random=False),
)
def test_any_batches_and_redelivery_give_the_same_rows(made, cuts, shuffled) -> None:  # type: ignore[no-untyped-def]
    world = World(made)
    topics = sorted(world.topics)
    once, often = TornTables(), TornTables()
    run(world.apply(once, topics, ()))
    shuffled.shuffle(topics)
    run(world.apply(often, topics, cuts))
    run(world.apply(often, topics, cuts))
    assert run(dump(often)) == run(dump(once))


def test_the_log_of_the_property_has_every_kind() -> None:
    world = World([(Pack(0), 0), (Pack(1), QUIET_MS)])
    kinds = {type(e).__name__ for events in world.topics.values() for e in events}
    assert kinds >= {"PackStored", "PatientSeen", "StudyCompleted", "StudyReopened", "AccessUsed", "PackArchived"}
    assert any(isinstance(e, PatientSeen) for e in world.topics["sijil.patients"])
