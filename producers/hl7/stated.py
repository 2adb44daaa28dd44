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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from infra import clock
from infra.chain import Publishes
from infra.patient_keys import PatientKeys
from infra.ports import Objects
from producers.hl7.incoming import Acknowledging, Incoming
from producers.hl7.person import Person, files, merged, other, patient
from producers.links import Links
from schemas.errors import Invalid
from schemas.events import PatientAliased, PatientStated
from schemas.identity import derived_id
from schemas.patient_keys import Keys
from schemas.stated import Stated, encode

STATES: Final = tuple(f"ADT^{event}" for event in "A01 A04 A05 A08 A28 A31".split())
JOINS: Final = tuple(f"ADT^{event}" for event in "A24 A30 A34 A39 A40 A47".split())
PARTS: Final = ("ADT^A37",)
KEPT_S = 10.0


class PatientsIn:
    """Takes in patients."""

    def __init__(self, objects: Objects, chain: Publishes, *, bucket: str, keys: PatientKeys) -> None:
        self._objects, self._chain, self._bucket, self._keys = objects, chain, bucket, keys

    async def state(self, incoming: Incoming) -> None:
        """Who somebody is. See `producers.hl7.incoming.Take`."""
        person = patient(incoming.message)
        keys, aliases = await self._keys.made(partial(files, person, issuer=incoming.issuer))
        if not keys or not person.name:
            raise Invalid("hl7-patient-missing", "PID-3 and PID-5 say who the patient is")
        await asyncio.to_thread(self._state, incoming, person, keys, aliases)

    async def join(self, incoming: Incoming) -> None:
        """Whose numbers are one person's."""
        await self._decide(incoming, apart=False)

    async def part(self, incoming: Incoming) -> None:
        """Whose are not."""
        await self._decide(incoming, apart=True)

    def _state(self, incoming: Incoming, person: Person, keys: Sequence[str], aliases: Mapping[str, str]) -> None:
        number, issuer = person.best
        data = encode(
            Stated(
                name=person.name,
                number=number,
                issuer=issuer or incoming.issuer,
                birth_date=person.birth_date,
                sex=person.sex,
                phone=person.phone,
                locals=person.locals,
                locals_issuer=incoming.issuer,
            )
        )
        digest, key = hashlib.sha256(data).hexdigest(), f"patients/{incoming.message_id}.json"
        self._objects.put(self._bucket, key, data, sha256=digest, content_type="application/json")
        chain = Acknowledging(self._chain)
        _alias(chain, aliases)
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

    async def _decide(self, incoming: Incoming, *, apart: bool) -> None:
        person = patient(incoming.message)
        ended = merged(incoming.message)
        if not (ended.national or ended.locals):
            ended = other(incoming.message)
        # MRG holds numbers alone: what a national ID must agree with is who the person is said to be
        joining = ended.described_by(person)

        def both(keys: Keys) -> tuple[list[str], list[str]]:
            return files(person, keys, issuer=incoming.issuer), files(joining, keys, issuer=incoming.issuer)

        (stays, joined), aliases = await self._keys.made(both)
        if not stays or not joined or set(joined) <= set(stays[:1]):
            raise Invalid("hl7-merge-missing", "PID-3 and MRG-1 hold two numbers")
        await asyncio.to_thread(self._join, incoming, stays[0], joined, aliases, apart=apart)

    def _join(
        self, incoming: Incoming, stays: str, joined: Sequence[str], aliases: Mapping[str, str], *, apart: bool
    ) -> None:
        chain = Acknowledging(self._chain)
        _alias(chain, aliases)
        links = Links(chain)
        say: Callable[..., str] = links.unlink if apart else links.link
        event = incoming.message.header.text(9, 2).lower()
        for key in joined:
            if key != stays:
                link_id = derived_id("adt-link", incoming.message_id, stays, key)
                say(stays, key, reason=f"adt-{event}", by=incoming.actor, link_id=link_id)
        chain.wait()


def _alias(chain: Publishes, aliases: Mapping[str, str]) -> None:
    for alias, key in aliases.items():
        chain.publish(PatientAliased(patient_key=key, alias=alias), id=derived_id(PatientAliased.TYPE, alias))
