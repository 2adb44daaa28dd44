"""Objects that projections need: manifests, who a pack is of, access lists. Shell over the Objects port.

An event is produced after its objects are durable (design, rule 2), so one that is not there is first taken for late,
for a bounded time, and then for lost.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from infra import clock, telemetry
from infra.ports import Objects
from schemas.corrections import Document, decode_document
from schemas.errors import Invalid, NotFound
from schemas.events import Event, PackStored, Shown
from schemas.orders import Order
from schemas.orders import read as read_order
from schemas.pack import Manifest, decode_manifest
from schemas.people import Person, decode_person
from schemas.stated import Stated
from schemas.stated import decode as decode_stated
from schemas.steps import StepDocument, decode_step
from streams.dispatch import Wanted, wanted
from streams.facts import Fact
from streams.pack_rows import StudyPart
from streams.projections.orders import OrderMaterial
from streams.projections.studies import study_part

log = telemetry.logger(__name__)

THREADS = 8
"""Objects fetched at the same time."""
PERSONS_MAX = 4096
"""Remembered headers, a kilobyte or two each: patient.seen follows its pack-stored within a second."""
FIRST_S, MOST_S = 0.1, 1.0

T = TypeVar("T")

_shown = msgspec.json.Decoder(list[Shown])
_resource = msgspec.json.Decoder(dict[str, Any])


class Material:
    """Fetches what is wanted, several objects at once."""

    def __init__(self, objects: Objects, *, documents: str, missing_s: float, archive: str = "") -> None:
        """`archive`: bucket with the locked copies, where a manifest is looked for under its key when the hot one is
        gone. What an event names by checksum is checked wherever it comes from.
        """
        self._objects, self._documents, self._missing_s = objects, documents, missing_s
        self._archive = archive
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="material")
        self._persons: OrderedDict[tuple[str, str], StudyPart] = OrderedDict()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def manifests(self, facts: Sequence[Fact]) -> list[Manifest | Invalid]:
        """Manifest of each pack-stored, or why it has none. Raises Transient."""
        return await self._all(*(self._manifest(f.event) for f in facts))

    async def wanted(self, events: Iterable[Event]) -> list[Any]:
        """What each event's projection needs: None, the material, or Invalid for what is lost. Raises Transient."""
        return await self._all(*(self._wanted(wanted(e)) for e in events))

    @staticmethod
    async def _all(*calls: Any) -> list[Any]:
        """Results, Invalid among them; any other error is raised once all have ended."""
        found = await asyncio.gather(*calls, return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException) and not isinstance(error, Invalid):
                raise error
        return found

    async def _manifest(self, event: Event) -> Manifest:
        if not isinstance(event, PackStored):
            raise TypeError("only a pack has a manifest")
        return await self._fetch(event.bucket, event.manifest_key, "manifest-missing", lambda d: _checked(event, d))

    async def _wanted(
        self, want: Wanted | None
    ) -> StudyPart | list[Shown] | Manifest | Document | StepDocument | OrderMaterial | Stated | Person | None:
        if want is None:
            return None
        if want.kind == "order":
            now = await self._fetch(want.bucket, want.key, "order-missing", lambda d: _order(_same(want, d)))
            if not want.before:
                return OrderMaterial(now)
            return OrderMaterial(now, await self._fetch(want.bucket, want.before, "order-missing", _order))
        if want.kind == "correction":
            return await self._fetch(
                want.bucket, want.key, "correction-missing", lambda d: decode_document(_same(want, d))
            )
        if want.kind == "note":
            return await self._fetch(
                want.bucket, want.key, "manifest-missing", lambda d: decode_manifest(_same(want, d))
            )
        if want.kind == "stated":
            return await self._fetch(want.bucket, want.key, "stated-missing", lambda d: decode_stated(_same(want, d)))
        if want.kind == "staff":
            return await self._fetch(want.bucket, want.key, "person-missing", lambda d: decode_person(_same(want, d)))
        if want.kind == "step":
            return await self._fetch(want.bucket, want.key, "step-missing", lambda d: decode_step(_same(want, d)))
        if want.kind == "shown":
            return await self._fetch(
                want.bucket or self._documents, want.key, "access-list-missing", lambda d: _decode_shown(_same(want, d))
            )
        key = (want.bucket, want.key)
        person = self._persons.pop(key, None)
        if person is None:
            person = await self._fetch(*key, "manifest-missing", lambda d: study_part(decode_manifest(d)))
        self.remember(*key, person)
        return person

    def remember(self, bucket: str, manifest_key: str, person: StudyPart) -> None:
        """Keep a pack's header for the patient.seen that may follow."""
        self._persons[bucket, manifest_key] = person
        while len(self._persons) > PERSONS_MAX:
            self._persons.popitem(last=False)

    async def _fetch(self, bucket: str, key: str, missing: str, decode: Callable[[bytes], T]) -> T:
        """The decoded object. Raises Transient, and Invalid(`missing`) when it has not been there for long enough."""
        deadline = clock.monotonic() + self._missing_s
        delay_s = FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.run_in_executor(self._threads, lambda: decode(self._get(bucket, key)))
            except NotFound as error:
                if clock.monotonic() + delay_s > deadline:
                    raise Invalid(missing) from error
                log.warning("object is not there yet", bucket=bucket, key=key)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, MOST_S)

    def _get(self, bucket: str, key: str) -> bytes:
        try:
            return self._objects.get(bucket, key)
        except NotFound:
            if not self._archive or bucket == self._documents:
                raise
        return self._objects.get(self._archive, key)


def _checked(event: PackStored, data: bytes) -> Manifest:
    if hashlib.sha256(data).hexdigest() != event.manifest_sha256:
        raise Invalid("manifest-checksum")
    return decode_manifest(data)


def _same(want: Wanted, data: bytes) -> bytes:
    if want.sha256 and hashlib.sha256(data).hexdigest() != want.sha256:
        raise Invalid("object-checksum")
    return data


def _decode_shown(data: bytes) -> list[Shown]:
    try:
        return _shown.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("access-list-damaged") from error


def _order(data: bytes) -> Order:
    try:
        return read_order(_resource.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("order-document", "the document of an order is damaged") from error
