"""Patients that come in (ADT): who somebody is, and whose numbers are one person's.

| event | what is said |
|---|---|
| A01, A04, A05, A08, A28, A31 | `patient.stated`: name, birth date, sex, phone of the files of these numbers |
| A24, A30, A34, A39, A40, A47 | `patient.linked`: the number in MRG (of A24 in the second PID) is this person's |
| A37 | `patient.unlinked`: it is not |

A file is the key of a number; a national ID makes one only where birth date and sex agree with it (schemas.identity).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final

from infra import clock
from infra.chain import Publishes
from infra.ports import Objects
from producers.hl7.incoming import Acknowledging, Incoming
from producers.hl7.person import Person, files, merged, other, patient
from producers.links import Links
from schemas.errors import Invalid
from schemas.events import PatientStated
from schemas.identity import derived_id
from schemas.stated import Stated, encode

STATES: Final = tuple(f"ADT^{event}" for event in "A01 A04 A05 A08 A28 A31".split())
JOINS: Final = tuple(f"ADT^{event}" for event in "A24 A30 A34 A39 A40 A47".split())
PARTS: Final = ("ADT^A37",)
KEPT_S = 10.0


class PatientsIn:
    """Takes in patients. `secret`: of patient keys; without one nothing is taken."""

    def __init__(self, objects: Objects, chain: Publishes, *, bucket: str, secret: bytes) -> None:
        self._objects, self._chain, self._bucket, self._secret = objects, chain, bucket, secret

    async def state(self, incoming: Incoming) -> None:
        """Who somebody is. See `producers.hl7.incoming.Take`."""
        await asyncio.to_thread(self._state, incoming)

    async def join(self, incoming: Incoming) -> None:
        """Whose numbers are one person's."""
        await asyncio.to_thread(self._join, incoming, apart=False)

    async def part(self, incoming: Incoming) -> None:
        """Whose are not."""
        await asyncio.to_thread(self._join, incoming, apart=True)

    def _state(self, incoming: Incoming) -> None:
        person = patient(incoming.message)
        keys = self._keys(person, incoming.issuer)
        if not keys or not person.name:
            raise Invalid("hl7-patient-missing", "PID-3 and PID-5 say who the patient is")
        number, issuer = person.best
        data = encode(
            Stated(
                name=person.name,
                number=number,
                issuer=issuer or incoming.issuer,
                birth_date=person.birth_date,
                sex=person.sex,
                phone=person.phone,
            )
        )
        digest, key = hashlib.sha256(data).hexdigest(), f"patients/{incoming.message_id}.json"
        self._objects.put(self._bucket, key, data, sha256=digest, content_type="application/json")
        chain = Acknowledging(self._chain)
        for patient_of in keys:
            event = PatientStated(
                patient_key=patient_of,
                site=incoming.site,
                stated_by=incoming.actor,
                recorded=clock.rfc3339(clock.now()),
                bucket=self._bucket,
                document_key=key,
                document_size=len(data),
                document_sha256=digest,
            )
            id = derived_id(PatientStated.TYPE, incoming.message_id, patient_of)
            chain.publish(event, id=id).kept.result(KEPT_S)
        chain.wait()

    def _join(self, incoming: Incoming, *, apart: bool) -> None:
        person = patient(incoming.message)
        ended = merged(incoming.message)
        if not (ended.national or ended.locals):
            ended = other(incoming.message)
        stays = self._keys(person, incoming.issuer)
        # MRG holds numbers alone: what a national ID must agree with is who the person is said to be
        joined = self._keys(ended.described_by(person), incoming.issuer)
        if not stays or not joined or set(joined) <= set(stays[:1]):
            raise Invalid("hl7-merge-missing", "PID-3 and MRG-1 hold two numbers")
        chain = Acknowledging(self._chain)
        links = Links(chain)
        say: Callable[..., str] = links.unlink if apart else links.link
        event = incoming.message.header.text(9, 2).lower()
        for key in joined:
            if key != stays[0]:
                link_id = derived_id("adt-link", incoming.message_id, stays[0], key)
                partial(say, reason=f"adt-{event}", by=incoming.actor, link_id=link_id)(stays[0], key)
        chain.wait()

    def _keys(self, person: Person, issuer: str) -> list[str]:
        return files(person, secret=self._secret, issuer=issuer)
