"""The people door: staff as FHIR R4 `Practitioner` (who somebody is) and `PractitionerRole` (what they do, and where).

`PUT …/{id}` states a person under the id that tokens and statements name them by; `POST` finds them by an identifier,
or makes an id of it that does not reveal it. Each has one PractitionerRole, under the id of the Practitioner. A change
goes these steps:

1. the last version is read from S3; what says the same as it is no change
2. `people/by-number/<hash>/<id>` says who may have a number
3. the document is in S3 under its version's key (`If-None-Match: *`: of two writers of one version one is refused)
4. the event `person.*` is in the chain's journal, and Kafka has acknowledged it or is given a little time to
5. `…/<version>.published` says so

A crash between 3 and 5 leaves a version without its event, or without the mark: the next change, or the same sent
again, publishes it first, under an id derived from person and version.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra import clock, faults, telemetry
from infra.chain import ChainedLog
from infra.durable import durable
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from infra.http_problems import problem
from infra.ports import Objects
from producers import person_document
from producers.person_document import Practitioner, PractitionerRole, checked_id
from schemas.errors import Defect, Invalid, Permanent
from schemas.events import PersonChanged, PersonLeft, PersonRegistered
from schemas.identity import derived_id
from schemas.people import Person, by_number, decode_person, encode_person, has_number, number_hash
from schemas.roles import Permission

FHIR_JSON: Final = "application/fhir+json"
MEDIA_TYPES: Final = (FHIR_JSON, "application/json")
PUBLISHED: Final = ".published"

STATED = telemetry.Counter("sijil_people_stated", "Changes of staff taken in, by event", ["event"])


class Conflict(Permanent):
    """The change cannot be made on what is there. `status` is HTTP's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Told:
    """What the sender is told. `version` is the last; `new`: this made it."""

    person_id: str
    version: int
    new: bool


@dataclass(frozen=True)
class _Known:
    """The last version and which are published."""

    last: Person | None
    published: frozenset[int]


class People:
    """Takes in changes of staff. Blocking; thread-safe."""

    def __init__(self, objects: Objects, chain: ChainedLog, *, bucket: str, secret: bytes) -> None:
        """`secret`: key of the HMAC over numbers."""
        self._objects, self._chain, self._bucket, self._secret = objects, chain, bucket, secret

    def practitioner(self, sent: Practitioner, asked_id: str, actor: str) -> Told:
        """Who somebody is. Raises Conflict(409) for a number that is another's."""
        hashes = [number_hash(self._secret, *i) for i in sent.identifiers]
        holders = {p for h in hashes for p in self._holders(h)}
        id = asked_id or next(iter(sorted(holders)), "p1." + hashes[0])
        if holders - {id}:
            raise Conflict(409, "person-number-taken", "a number of this Practitioner is another person's")
        if not asked_id and not holders and self._known(id).last is not None:
            # Made of a number that this person no longer has
            raise Conflict(409, "person-id-taken", "PUT this Practitioner under an id of its own")

        def changed(last: Person | None) -> Person:
            stated = clock.rfc3339(clock.now())
            if last is None:
                return Person(
                    person_id=id,
                    version=1,
                    practitioner=sent.resource,
                    present=sent.active,
                    stated_by=actor,
                    recorded=stated,
                )
            return msgspec.structs.replace(last, practitioner=sent.resource, present=sent.active)

        return self._change(id, changed, actor, hashes)

    def role(self, sent: PractitionerRole, actor: str) -> Told:
        """What somebody does. Raises Conflict(422) for one whom nobody has registered."""

        def changed(last: Person | None) -> Person:
            if last is None:
                raise Conflict(422, "person-unknown", "no Practitioner has this id: register them first")
            return msgspec.structs.replace(
                last,
                role_active=sent.active,
                roles=list(sent.roles),
                sites=list(sent.sites),
                subspecialties=list(sent.subspecialties),
            )

        return self._change(sent.person_id, changed, actor, ())

    def _change(self, id: str, change: Callable[[Person | None], Person], actor: str, hashes: Sequence[str]) -> Told:
        known = self._known(id)
        last = known.last
        person = change(last)
        if last is not None and last.version not in known.published:
            self._publish(last)
        if last is not None and person == last:
            return Told(id, last.version, new=False)
        if last is not None:
            recorded = clock.rfc3339(clock.now())
            person = msgspec.structs.replace(person, version=last.version + 1, stated_by=actor, recorded=recorded)
        # Step 2: whose the numbers may be
        for digest in hashes:
            self._mark(by_number(digest) + id)
        # Step 3: the document
        data = encode_person(person)
        try:
            self._objects.put(
                self._bucket,
                _key(id, person.version),
                data,
                sha256=hashlib.sha256(data).hexdigest(),
                content_type="application/json",
            )
        except Defect as taken:
            raise Conflict(409, "person-changed", "somebody else changes this person: send it again") from taken
        faults.point("people.after-document")
        self._publish(person)
        return Told(id, person.version, new=True)

    def _publish(self, person: Person) -> None:
        """Steps 4 and 5."""
        before = self._read(person.person_id, person.version - 1) if person.version > 1 else None
        kind: type[PersonRegistered | PersonChanged | PersonLeft] = PersonChanged
        if before is None:
            kind = PersonRegistered
        elif before.active and not person.active:
            kind = PersonLeft
        data = encode_person(person)
        event = kind(
            person_id=person.person_id,
            version=person.version,
            active=person.active,
            roles=list(person.roles),
            sites=list(person.sites),
            subspecialties=list(person.subspecialties),
            stated_by=person.stated_by,
            recorded=person.recorded,
            bucket=self._bucket,
            document_key=_key(person.person_id, person.version),
            document_size=len(data),
            document_sha256=hashlib.sha256(data).hexdigest(),
        )
        id = derived_id("person", person.person_id, person.version)
        durable(self._chain, event, id=id, subject=person.person_id)
        self._mark(_key(person.person_id, person.version) + PUBLISHED)
        STATED.labels(event.TYPE).inc()

    def _holders(self, digest: str) -> list[str]:
        """Those whose last version has a number."""
        ids = [key.rpartition("/")[2] for key in self._objects.list(self._bucket, by_number(digest))]
        last = {id: self._known(id).last for id in ids}
        return [id for id, person in last.items() if person and has_number(self._secret, person, digest)]

    def _known(self, id: str) -> _Known:
        names = [k.removeprefix(_prefix(id)) for k in self._objects.list(self._bucket, _prefix(id))]
        versions = sorted(int(n.removesuffix(".json")) for n in names if n.endswith(".json"))
        published = (n.removesuffix(".json" + PUBLISHED) for n in names if n.endswith(PUBLISHED))
        return _Known(self._read(id, versions[-1]) if versions else None, frozenset(map(int, published)))

    def _read(self, id: str, version: int) -> Person:
        return decode_person(self._objects.get(self._bucket, _key(id, version)))

    def _mark(self, key: str) -> None:
        self._objects.put(self._bucket, key, b"", sha256=hashlib.sha256(b"").hexdigest())


def _prefix(id: str) -> str:
    return f"people/by-id/{id}/"


def _key(id: str, version: int) -> str:
    return f"{_prefix(id)}{version}.json"


# ------------------------------------------------------------------------------------------------ HTTP


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the door's handlers."""
    settings = http.settings
    people = People(
        http.objects, http.chain, bucket=settings.bucket_documents, secret=bytes.fromhex(settings.search_secret)
    )
    may = [needs(Permission.PEOPLE_WRITE)]
    body = {"requestBody": {"required": True, "content": {FHIR_JSON: {"schema": {"type": "object"}}}}}

    async def practitioner(request: Request, id: str) -> Response:
        document = await _body(request)
        if document is None:
            return _unsupported()
        sent = person_document.practitioner(document)
        if id and sent.id and sent.id != id:
            raise Invalid("person-id", "the id of the Practitioner is not the one of the address")
        actor = caller_of(request).actor
        return await _answer("Practitioner", lambda: people.practitioner(sent, id or sent.id, actor))

    async def role(request: Request, id: str) -> Response:
        document = await _body(request)
        if document is None:
            return _unsupported()
        sent = person_document.practitioner_role(document)
        if id and sent.person_id != id:
            raise Invalid(
                "person-id", "the id of a PractitionerRole is that of its Practitioner: there is one for each"
            )
        actor = caller_of(request).actor
        return await _answer("PractitionerRole", lambda: people.role(sent, actor))

    @app.post(
        "/fhir/Practitioner",
        tags=["People"],
        summary="Register somebody, or change who has one of these numbers (FHIR R4 Practitioner)",
        dependencies=may,
        openapi_extra=body,
    )
    async def add_practitioner(request: Request) -> Response:
        return await practitioner(request, "")

    @app.put(
        "/fhir/Practitioner/{person}",
        tags=["People"],
        summary="Register or change somebody under the id that tokens name them by; `active: false`: they left",
        dependencies=may,
        openapi_extra=body,
    )
    async def put_practitioner(request: Request, person: str) -> Response:
        return await practitioner(request, checked_id(person))

    @app.post(
        "/fhir/PractitionerRole",
        tags=["People"],
        summary="Say what somebody does and where (FHIR R4 PractitionerRole; one for each Practitioner)",
        dependencies=may,
        openapi_extra=body,
    )
    async def add_role(request: Request) -> Response:
        return await role(request, "")

    @app.put(
        "/fhir/PractitionerRole/{person}",
        tags=["People"],
        summary="The same; the id is that of the Practitioner",
        dependencies=may,
        openapi_extra=body,
    )
    async def put_role(request: Request, person: str) -> Response:
        return await role(request, checked_id(person))


async def _answer(kind: str, work: Callable[[], Told]) -> Response:
    try:
        told = await asyncio.to_thread(work)
    except Conflict as conflict:
        return problem(conflict.status, "This person cannot be changed so", str(conflict), reason=conflict.reason)
    return JSONResponse(
        {"id": told.person_id, "version": told.version, "changed": told.new},
        201 if told.new and told.version == 1 else 200,
        {"Location": f"/fhir/{kind}/{told.person_id}", "ETag": f'W/"{told.version}"'},
    )


async def _body(request: Request) -> bytes | None:
    """The document; None for another media type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return await request.body() if kind in MEDIA_TYPES else None


def _unsupported() -> Response:
    return problem(415, f"A Practitioner or PractitionerRole is {FHIR_JSON}")
