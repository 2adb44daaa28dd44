"""The HL7 door's answers over the ports in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from infra import hl7_senders
from infra.chain import ChainedLog
from infra.hl7_senders import Sender
from infra.known_studies import KnownStudies
from infra.memory import MemoryLog, MemoryObjects, MemoryTables
from infra.mllp import Peer
from infra.patient_keys import PatientKeys
from infra.results_waiting import Queue
from producers.critical import Duty
from producers.hl7.answered import Answered
from producers.hl7.orders import OrdersIn
from producers.hl7.receiver import Receiver
from producers.hl7.results import Results
from producers.hl7.stated import JOINS, PARTS, STATES, PatientsIn
from schemas.envelope import decode
from schemas.events import Event
from schemas.hl7 import Segment, parse
from schemas.known_study import KnownStudy
from schemas.patient_keys import PatientSecret, PatientSecrets
from schemas.tables import STATE_KEYSPACE

SECRET = b"secret of patient keys"
BUCKET = "sijil-documents"
HERE = Peer("127.0.0.1")
SENDERS = (Sender("H1", "127.0.0.0/8", site="SITE1"), Sender("*", "10.0.0.0/8"))


class Studies(KnownStudies):
    """What the read models would say."""

    def __init__(self) -> None:
        self.of: dict[str, list[KnownStudy]] = {}

    def arrives(
        self,
        uid: str,
        accession: str,
        *,
        site: str = "SITE1",
        patient_id: str = "P1",
        born: str = "19900101",
        files: Iterable[str] = (),
    ) -> None:
        study = KnownStudy(
            study_uid=uid,
            sites=frozenset({site}),
            patient_id=patient_id,
            birth_date=born,
            sex="F",
            files=frozenset(files),
        )
        self.of.setdefault(accession, []).append(study)

    async def by_accession(self, accession: str) -> Sequence[KnownStudy]:
        return self.of.get(accession, [])

    async def by_uid(self, study_uids: Sequence[str]) -> Sequence[KnownStudy]:
        return [s for listed in self.of.values() for s in listed if s.study_uid in study_uids]


class World:
    """One process of the door: another on the same `folder` is its next life."""

    def __init__(self, folder: Path) -> None:
        self.log, self.objects = MemoryLog(), MemoryObjects()
        self.state = MemoryTables().with_keyspace(STATE_KEYSPACE)
        self.studies = Studies()
        self.keys = PatientKeys(MemoryTables(), PatientSecrets(PatientSecret(1, SECRET)))
        self.chain = ChainedLog(self.log, folder / "chain", "/hl7/SITE1/1", backlog_max=100, anchors=None)
        self.queue = Queue(self.state)
        self.results = Results(
            objects=self.objects,
            chain=self.chain,
            bucket=BUCKET,
            duty=Duty(),
            studies=lambda: self.studies,
            queue=self.queue,
            zone=ZoneInfo("Africa/Cairo"),
            keys=self.keys,
        )
        orders = OrdersIn(
            self.objects, self.chain, bucket=BUCKET, zone=ZoneInfo("Africa/Cairo"), zone_name="Africa/Cairo"
        )
        patients = PatientsIn(self.objects, self.chain, bucket=BUCKET, keys=self.keys)
        self.receiver = Receiver(
            objects=self.objects,
            bucket=BUCKET,
            site="HOME",
            processing="P",
            senders=partial(hl7_senders.read, self.state),
            answered=Answered(self.state),
            takes={
                "ORU^R01": self.results.take,
                "ORM^O01": orders.take,
                "OMI^O23": orders.take,
                **dict.fromkeys(STATES, patients.state),
                **dict.fromkeys(JOINS, patients.join),
                **dict.fromkeys(PARTS, patients.part),
            },
        )

    async def set_senders(self) -> None:
        for sender in SENDERS:
            await hl7_senders.add(self.state, sender)

    def send(self, text: str, peer: Peer = HERE, codec: str = "utf-8") -> str:
        """MSA-1 of the answer."""
        return self.answer(text, peer, codec)[0].text(1)

    def answer(self, text: str, peer: Peer = HERE, codec: str = "utf-8") -> tuple[Segment, Segment]:
        """MSA and ERR."""

        async def ask() -> bytes:
            await self.set_senders()
            return await self.receiver.answer(text.encode(codec), peer)

        ack = parse(asyncio.run(ask()).decode("ascii"))
        return ack.first("MSA"), ack.first("ERR")

    def events(self, topic: str = "sijil.reports") -> list[Event]:
        found = []
        for r in self.log.read(topic, {}, self.log.ends(topic)):
            assert b"\xd8" not in (r.value or b"")  # no Arabic text on the log
            found.append(decode(topic, r.key, r.headers, r.value).event)
        return found
