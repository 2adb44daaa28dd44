"""The door of corrections: `POST /studies/{study}/corrections`.

A correction goes these steps:

1. the corrections of the study that are there are read from S3 (no read model: a producer never asks one)
2. its document is in S3 under the next number (`If-None-Match: *`: of two writers of one number one comes later)
3. the event is in the chain's journal, and Kafka has acknowledged it or is given a little time to
4. the sender is told id and number

The id is the client's, so that sending again changes nothing: a crash between 2 and 3 leaves a document without an
event, the sender, who was told nothing, sends again, and the event is published under an id derived from both. A client
that says `If-Match` with the number of the last correction it knows of is refused (412) when there are others.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra import clock, faults, telemetry
from infra.chain import ChainedLog
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from infra.http_problems import problem
from infra.ports import Objects
from producers.correction_request import Asked, correction, event, parse
from schemas.corrections import Document, decode_document, encode
from schemas.errors import Defect, Invalid, Permanent, SijilError
from schemas.identity import check_uid, derived_id
from schemas.roles import Permission

log = telemetry.logger(__name__)

BODY_BYTES_MAX = 1 << 20
NUMBERS_MAX = 1000
"""Corrections of one study: all are read to lay them over it."""
ATTEMPTS = 8
"""How often a number is taken anew when another writer had it first."""
KEPT_S = 10.0
ACKNOWLEDGED_S = 2.0
"""How long an answer waits for Kafka; the event is on this machine's disk before that."""
JSON = "application/json"

CORRECTIONS = telemetry.Counter("sijil_corrections", "Corrections taken in, by type", ["type"])


class Refused(Permanent):
    """The correction cannot be made on what is there. `status` is HTTP's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Told:
    """What the sender is told."""

    document: Document
    new: bool


class Corrections:
    """Takes in corrections. Blocking; thread-safe."""

    def __init__(self, objects: Objects, chain: ChainedLog, *, bucket: str) -> None:
        self._objects, self._chain, self._bucket = objects, chain, bucket

    def add(self, study_uid: str, asked: Asked, actor: str, expected: int | None) -> Told:
        """Steps 1 to 3. `expected`: number of the last correction the sender knows of; None: it does not say.

        Raises Invalid(`correction-…`), Refused(409, 412).
        """
        said = correction(asked)
        for _ in range(ATTEMPTS):
            # Step 1: what is there
            numbers = self._numbers(study_uid)
            for number in reversed(numbers):
                kept = self._read(study_uid, number)
                if kept.id == asked.id:
                    if kept.correction != said:
                        raise Refused(409, "correction-id", "another correction has this id")
                    return Told(self._publish(kept), new=False)
            last = numbers[-1] if numbers else 0
            if expected is not None and expected != last:
                raise Refused(412, "correction-number", f"the last correction of this study is {last}")
            if last >= NUMBERS_MAX:
                raise Refused(409, "correction-count", f"a study has at most {NUMBERS_MAX} corrections")
            document = Document(
                id=asked.id,
                study_uid=study_uid,
                number=last + 1,
                actor=actor,
                recorded=clock.rfc3339(clock.now()),
                reason=asked.reason,
                comment=asked.comment,
                correction=said,
            )
            # Step 2: the document
            data = encode(document)
            digest = hashlib.sha256(data).hexdigest()
            try:
                self._objects.put(self._bucket, _key(document), data, sha256=digest, content_type=JSON)
            except Defect:
                continue  # another writer has this number: look again
            faults.point("corrections.after-document")
            CORRECTIONS.labels(said.type).inc()
            return Told(self._publish(document), new=True)
        raise Refused(409, "correction-busy", "others are correcting this study: try again")

    def _publish(self, document: Document) -> Document:
        """Step 3: the event."""
        data = encode(document)
        digest = hashlib.sha256(data).hexdigest()
        found = event(document, self._bucket, _key(document), len(data), digest)
        id = derived_id(found.TYPE, document.study_uid, document.id)
        publication = self._chain.publish(found, id=id, subject=document.study_uid)
        publication.kept.result(KEPT_S)
        try:
            publication.acknowledged.result(ACKNOWLEDGED_S)
        except (SijilError, FutureTimeout):
            log.warning("corrected, kafka has not acknowledged it yet", study_uid=document.study_uid, event_id=id)
        return document

    def _numbers(self, study_uid: str) -> list[int]:
        keys = self._objects.list(self._bucket, _prefix(study_uid))
        names = (key.rpartition("/")[2].removesuffix(".json") for key in keys)
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _read(self, study_uid: str, number: int) -> Document:
        return decode_document(self._objects.get(self._bucket, f"{_prefix(study_uid)}{number:06}.json"))


def _prefix(study_uid: str) -> str:
    return f"corrections/{study_uid}/"


def _key(document: Document) -> str:
    return f"{_prefix(document.study_uid)}{document.number:06}.json"


# ------------------------------------------------------------------------------------------------ HTTP


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the door's handler."""
    corrections = Corrections(http.objects, http.chain, bucket=http.settings.bucket_documents)

    @app.post(
        "/studies/{study}/corrections",
        tags=["Corrections"],
        dependencies=[needs(Permission.STUDY_CORRECT)],
        summary="Correct attributes, reassign to another patient, resolve a conflict, reject or restore",
        description="`type` is `correct` (attributes by keyword; series_uid, sop_uid), `reassign` (patient by keyword),"
        " `resolve` (sop_uid, serve, second_offset: as `GET /conflicts` gives them), `reject` (code of IHE IOCM;"
        " series_uid, sop_uids) or `restore` (rejection). `id` is a UUID of the client's. What is stored never changes:"
        " `…/original` gives it.",
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}},
    )
    async def correct(request: Request, study: str) -> Response:
        check_uid(study)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return problem(415, f"A correction is {JSON}")
        asked = parse(await request.body())
        actor = caller_of(request).actor
        expected = _if_match(request.headers.get("if-match"))
        try:
            told = await asyncio.to_thread(partial(corrections.add, study, asked, actor, expected))
        except Refused as refused:
            return problem(refused.status, "The study cannot be corrected so", str(refused), reason=refused.reason)
        # Step 4: id and number, and nothing of the study: that would be a read
        return JSONResponse(
            {"correction_id": told.document.id, "number": told.document.number},
            201 if told.new else 200,
            {"Location": f"/studies/{study}/corrections", "ETag": f'W/"{told.document.number}"'},
        )


def _if_match(header: str | None) -> int | None:
    if header is None:
        return None
    number = header.strip().removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit()):
        raise Invalid("correction-if-match", 'If-Match is W/"<number of the last correction>"')
    return int(number)
