"""A patient secret is replaced: every file stays one, whatever is known of it, and wherever somebody is killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from infra.dead_letters import DeadLetters
from infra.memory import MemoryLog, MemoryObjects, MemoryTables
from infra.patient_keys import PatientKeys
from infra.patient_secret import fingerprints
from infra.ports import Select
from producers.correction_request import correction, event, parse
from schemas.corrections import Document
from schemas.corrections import encode as encode_correction
from schemas.envelope import encode
from schemas.errors import Invalid
from schemas.events import (
    AccessGranted,
    AccessInvited,
    Event,
    OrderPlaced,
    PatientKeptApart,
    PatientLinked,
    PatientStated,
    Shown,
    TreatingStated,
)
from schemas.identity import NATIONAL_ISSUER, national_id_check_digit, patient_key
from schemas.orders import resource
from schemas.patient_keys import PatientSecret, PatientSecrets
from schemas.stated import Stated
from schemas.stated import encode as encode_stated
from schemas.tables import STATE_KEYSPACE
from streams.apply import Projector
from streams.dispatch import TOPICS_FOLLOWED
from streams.effects import Emit
from streams.material import Material
from streams.replay import Replay, settle
from streams.retiring import Retiring
from streams.timers import Timers
from streams.worker import ARRIVALS, Worker
from tests.unit.schemas.test_orders import WHOLE
from tests.unit.streams.samples import DOCUMENTS, PERSON, Pack, dump, run

FIRST, SECOND, THIRD = (PatientSecret(n, bytes([n]) * 32) for n in (1, 2, 3))
ONE, BOTH, NEWEST = PatientSecrets(FIRST), PatientSecrets(SECOND, FIRST), PatientSecrets(SECOND)
NATIONAL = "2800101010024" + national_id_check_digit("2800101010024")
WHO: dict[str, Any] = {
    "actor": "person:1",
    "role": "doctor",
    "purpose": "TREAT",
    "action": "retrieve",
    "occurred": "2025-03-01T08:00:00Z",
}
SAID: dict[str, Any] = {"stated_by": "person:1", "recorded": "2025-03-01T08:00:00Z"}


def key(number: str, issuer: str = "CAIRO-1", secret: PatientSecret = FIRST, study: str = "") -> str:
    born, sex = PERSON["t00100030"], PERSON["t00100040"]
    found = patient_key(
        secret.value,
        secret.generation,
        patient_id=number,
        issuer=issuer,
        birth_date=born,
        sex=sex,
        study_uid=study,
    )
    return found.value


def uuid(n: int) -> str:
    return str(UUID(int=n))


class Killed(Exception):
    """The process is gone."""


class House:
    """A log and what it names, and read models that one worker after another fills."""

    def __init__(self) -> None:
        self.log, self.objects, self.tables = MemoryLog(partitions=1), MemoryObjects(), MemoryTables()
        self.material = Material(self.objects, documents=DOCUMENTS, missing_s=0)
        self.published = 0
        self.dies_after: int | None = None
        """Events published until the process is gone; None: it stays."""

    def say(self, *events: Event) -> None:
        for found in events:
            self.published += 1
            record = encode(found, id=f"said-{self.published}", source="/t/1", time="2025-03-01T08:00:00Z")
            self.log.append(record).result()

    async def publish(self, emits: Sequence[Emit]) -> None:
        for emit in emits:
            if self.dies_after is not None:
                if self.dies_after == 0:
                    raise Killed
                self.dies_after -= 1
            record = encode(emit.event, id=emit.id, source="/worker/1", time="2025-03-01T08:00:00Z")
            self.log.append(record).result()

    async def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        return self.log.ends(ARRIVALS)

    def work(self, secrets: PatientSecrets, topics: Sequence[str] = TOPICS_FOLLOWED) -> None:
        """A worker's life, until nothing is left of these topics."""
        timers = Timers(self.tables, ARRIVALS, 60_000, self.publish, self.ends)
        run(timers.assigned([0]))
        worker = Worker(
            self.tables,
            Projector(self.tables, self.material, secrets),
            timers,
            DeadLetters(self.objects, DOCUMENTS, b"k" * 32).keep,
            self.publish,
            source="/worker/1",
            quiet_ms=60_000,
        )
        busy = True
        while busy:
            busy = False
            for topic in topics:
                where = {"projection": "views", "topic": topic}
                rows = run(self.tables.select(Select("projection_positions", where)))
                start = {r["partition"]: r["next_offset"] for r in rows}
                if records := list(self.log.read(topic, start, self.log.ends(topic))):
                    assert run(worker.handle(records)) == []
                    busy = True
        run(timers.settle())
        assert not list(self.log.read("sijil.dead-letters", {}, self.log.ends("sijil.dead-letters")))

    def retire(self, secrets: PatientSecrets = BOTH, leave: int = 0) -> Retiring:
        projector = Projector(self.tables, self.material, secrets)
        retiring = Retiring(self.log, self.tables, projector, self.publish, secrets)
        run(retiring.run(leave))
        return retiring

    def rebuilt(self, secrets: PatientSecrets, name: str) -> dict[str, list[dict[str, Any]]]:
        other = self.tables.with_keyspace(name)
        done = run(Replay(self.log, Projector(other, self.material, secrets)).run())
        assert not done.lost
        assert not done.passed_over
        run(settle(other))
        return run(dump(other))

    def files(self) -> dict[str, set[str]]:
        """Number → keys of its files, by whatever says so."""
        found: dict[str, set[str]] = {}
        tables = run(dump(self.tables))
        for row in tables["packs_by_study"]:
            found.setdefault(f"study {row['study_uid']}", set()).add(row["patient_key"])
        for row in tables["orders"]:
            found.setdefault(f"order {row['patient_id']}", set()).add(row["patient_key"])
        for row in (r for r in tables["patients"] if r["basis"]):
            found.setdefault(f"patient {row['patient_id']} {row['last_study_uid']}", set()).add(row["patient_key"])
        return found

    def document(self, name: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.objects.put(DOCUMENTS, name, data, sha256=digest)
        return {"bucket": DOCUMENTS, "document_key": name, "document_size": len(data), "document_sha256": digest}

    # ---------------------------------------------------------------------------------------------- what happens

    def images(self, n: int, study: str, number: str) -> None:
        self.say(
            Pack(n, (("1", str(n), str(n)),), study=study, header={**PERSON, "t00100020": number}).put(self.objects)
        )

    def ordered(self, n: int, number: str) -> None:
        order = replace(WHOLE, patient_id=number, issuer="", order_id=uuid(n), study_uid=f"2.25.{n}")
        data = json.dumps(resource(order)).encode()
        self.say(
            OrderPlaced(
                order_id=order.order_id,
                version=1,
                status="active",
                priority="routine",
                site=order.site,
                study_uid=order.study_uid,
                modality="CT",
                day="20261123",
                day_before="",
                actor="person:1",
                recorded="2026-11-23T08:00:00Z",
                **self.document(f"orders/{n}", data),
            )
        )

    def stated(self, name: str, number: str, issuer: str, *locals: str) -> None:
        person = Stated(
            name="x",
            number=number,
            issuer=issuer,
            birth_date=PERSON["t00100030"],
            sex=PERSON["t00100040"],
            phone="",
            locals=locals,
            locals_issuer="CAIRO-1",
        )
        where = self.document(f"patients/{name}", encode_stated(person))
        for one in (number, *locals):
            self.say(PatientStated(patient_key=key(one), site="CAIRO-1", **SAID, **where))

    def reassigned(self, study: str, number: str) -> None:
        asked = {"id": uuid(7), "type": "reassign", "patient": {"PatientID": number, "PatientName": "Adel^Mona"}}
        found = parse(json.dumps(asked).encode())
        made = Document(
            id=found.id,
            study_uid=study,
            number=1,
            actor="http:x",
            recorded="2025-03-01T09:00:00Z",
            reason=found.reason,
            correction=correction(found),
        )
        put = self.document(f"corrections/{study}", encode_correction(made))
        self.say(event(made, DOCUMENTS, put["document_key"], put["document_size"], put["document_sha256"]))

    def owner(self, study: str) -> str:
        (row,) = run(self.tables.select(Select("studies", {"study_uid": study})))
        if row["overlay"]:
            return str(json.loads(row["overlay"])["patient_key"])
        return str(row["patient_key"])


def lived() -> House:
    """An archive that knows people by all that makes them known, under its first secret."""
    house = House()
    house.images(1, "1.2.1", "P-1")
    house.images(2, "1.2.2", NATIONAL)
    house.images(3, "1.2.3", "0")
    house.images(4, "1.2.4", "P-4")
    house.reassigned("1.2.4", "P-5")
    house.ordered(6, "P-6")
    house.stated("s7", NATIONAL, NATIONAL_ISSUER, "P-7", "P-8")
    house.say(
        PatientLinked(link_id=uuid(1), patient_key=key("P-1"), other_key=key("P-7"), reason="adt-a40", **SAID),
        PatientKeptApart(link_id=uuid(2), patient_key=key("P-1"), other_key=key("P-4"), reason="administrator", **SAID),
        TreatingStated(patient_key=key("P-8"), person_id="dr-1", relation="treating", **SAID),
        AccessGranted(
            access_id=uuid(3), study_uid="1.2.1", shown=[Shown(study_uid="1.2.1", patient_key=key("P-1"))], **WHO
        ),
        AccessInvited(
            access_id=uuid(4), patient_key=key("P-6", "CAI-01"), factor="pin", once=True, until=SAID["recorded"], **WHO
        ),
    )
    house.work(ONE)
    return house


def comes_again(house: House, n: int) -> None:
    """Everybody who is known comes again."""
    for m, number in enumerate(("P-1", NATIONAL, "P-4", "P-5", "P-7", "P-8")):
        house.images(n + m, f"1.2.{n + m}", number)
    house.images(n + 8, "1.2.3", "0")
    house.ordered(n + 9, "P-6")


def all_stay(house: House, n: int) -> None:
    """They found their files."""
    for m, number in enumerate(("P-1", NATIONAL, "P-4", "P-5", "P-7", "P-8")):
        assert house.owner(f"1.2.{n + m}") == key(number), number
    assert house.owner("1.2.4") == key("P-5")
    assert {name: keys for name, keys in house.files().items() if len(keys) != 1} == {}


def test_every_file_stays_one_before_during_and_after() -> None:
    house = lived()
    before = run(dump(house.tables))
    comes_again(house, 20)
    house.work(BOTH)
    all_stay(house, 20)
    done = house.retire().done
    assert (done.aliases > 0, done.nameless) == (True, set())
    assert run(fingerprints(house.tables.with_keyspace(STATE_KEYSPACE))) == NEWEST.fingerprints

    comes_again(house, 40)
    house.images(60, "1.2.60", "P-99")
    house.work(NEWEST)
    all_stay(house, 20)
    all_stay(house, 40)
    assert house.owner("1.2.60") == key("P-99", secret=SECOND), "whom nobody knew has a key of the new secret"

    after = run(dump(house.tables))
    for table in ("patient_links", "treating_by_person", "accesses_by_patient", "corrections"):
        assert after[table] == before[table] != [], table
    assert house.rebuilt(NEWEST, "sijil_views_2") == after, "a rebuild needs the previous secret for nothing"


def test_the_next_secret_finds_the_same_files() -> None:
    house = lived()
    house.retire()
    house.work(NEWEST)
    house.images(60, "1.2.60", "P-99")
    house.work(NEWEST)
    house.retire(PatientSecrets(THIRD, SECOND))
    third = PatientSecrets(THIRD)
    comes_again(house, 40)
    house.images(61, "1.2.61", "P-99")
    house.work(third)
    all_stay(house, 40)
    assert house.owner("1.2.61") == house.owner("1.2.60") == key("P-99", secret=SECOND)
    assert house.rebuilt(third, "sijil_views_2") == run(dump(house.tables))


@pytest.mark.parametrize("published", range(0, 8, 2))
def test_who_is_killed_can_do_it_again(published: int) -> None:
    house = lived()
    house.dies_after = published
    with pytest.raises(Killed):
        house.retire()
    assert run(fingerprints(house.tables.with_keyspace(STATE_KEYSPACE))) == ()
    house.dies_after = None
    comes_again(house, 20)
    house.work(BOTH)
    all_stay(house, 20)
    house.retire()
    comes_again(house, 40)
    house.work(NEWEST)
    all_stay(house, 40)
    assert house.rebuilt(NEWEST, "sijil_views_2") == run(dump(house.tables))


def test_what_the_tables_have_not_yet_is_not_forgotten() -> None:
    """A worker that is behind, and one that was killed between its rows and its events."""
    house = lived()
    comes_again(house, 20)
    house.stated("s30", "P-30", "CAIRO-1")
    house.say(TreatingStated(patient_key=key("P-30"), person_id="dr-1", relation="treating", **SAID))
    house.dies_after = 0
    with pytest.raises(Killed):
        house.work(BOTH, [ARRIVALS])
    house.dies_after = None
    house.retire()
    house.images(50, "1.2.50", "P-30")
    house.work(NEWEST)
    all_stay(house, 20)
    assert house.owner("1.2.50") == key("P-30")
    assert house.rebuilt(NEWEST, "sijil_views_2") == run(dump(house.tables))


def test_a_decision_about_a_number_that_never_came_holds_the_end_up() -> None:
    house = lived()
    unknown = key("P-404")
    house.say(PatientLinked(link_id=uuid(9), patient_key=key("P-1"), other_key=unknown, reason="adt-a40", **SAID))
    house.work(BOTH)
    with pytest.raises(Invalid, match="--leave 1"):
        house.retire()
    assert run(fingerprints(house.tables.with_keyspace(STATE_KEYSPACE))) == ()
    house.images(50, "1.2.50", "P-404")
    house.work(BOTH)
    house.retire()
    house.images(51, "1.2.51", "P-404")
    house.work(NEWEST)
    assert house.owner("1.2.51") == unknown


def test_a_person_may_accept_that() -> None:
    house = lived()
    house.say(TreatingStated(patient_key=key("P-404"), person_id="dr-1", relation="treating", **SAID))
    assert house.retire(leave=1).done.nameless == {key("P-404")}
    house.images(50, "1.2.50", "P-404")
    house.work(NEWEST)
    assert house.owner("1.2.50") == key("P-404", secret=SECOND)
    house.retire(PatientSecrets(THIRD, SECOND)), "and is not asked again"


def test_an_alias_is_looked_up_once_when_it_cannot_change(monkeypatch: pytest.MonkeyPatch) -> None:
    house = lived()
    house.retire()
    keys = PatientKeys(house.tables, NEWEST)
    asked: list[str] = []
    look = keys.aliases

    async def counted(wanted: set[str]) -> dict[str, str]:
        asked.extend(wanted)
        return await look(wanted)

    monkeypatch.setattr(keys, "aliases", counted)
    for _ in range(2):
        for number in ("P-1", "P-99"):
            said = {"patient_id": number, "issuer": "CAIRO-1", "birth_date": "", "sex": "", "study_uid": ""}
            run(keys.made(lambda k, said=said: k.of(**said)))  # type: ignore[misc]
    assert sorted(asked) == sorted({key(n, secret=SECOND) for n in ("P-1", "P-99")})
