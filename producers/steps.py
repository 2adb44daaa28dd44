"""Performed procedure steps: what a device says of an examination, as versions in S3 and events on the topic `orders`.

A request goes these steps:

1. the versions that are there are read from S3 (no read model: a producer never asks one), and the request is judged
2. the document is in S3 under its version's key (`If-None-Match: *`: of two writers of one version one is refused)
3. the event, where a step begins or ends, is fsynced in the chain's journal
4. the device is answered

A crash between 2 and 3 leaves a document without an event; the device, which was told nothing, asks again, its own
content is found and the event is published: its id is derived from step and version.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from infra import clock, faults
from infra.ports import Objects
from producers.dicom.performed_step import (
    DUPLICATE,
    NO_LONGER,
    NO_SUCH_INSTANCE,
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    StepRefused,
    changed,
    check_begun,
)
from schemas import steps
from schemas.dicom_json import Dataset
from schemas.errors import Defect, NotFound
from schemas.events import Event, StepEnded, StepStarted
from schemas.identity import derived_id
from schemas.steps import StepDocument, decode_step, document_key, encode_step

VERSIONS_MAX = 200
"""Of one step: a device that reports each series of a long examination needs a dozen."""
KEPT_S = 10.0


class _Publication(Protocol):
    @property
    def kept(self) -> Future[None]: ...


class Chain(Protocol):
    """What `infra.chain.ChainedLog` does here."""

    def publish(self, event: Event, *, id: str = "", subject: str = "") -> _Publication: ...


@dataclass(frozen=True)
class StepOrigin:
    """Who says it."""

    site: str
    ae_title: str


class Steps:
    """Takes in what devices say. Blocking; thread-safe. Every call may raise Transient."""

    def __init__(self, objects: Objects, chain: Chain, *, bucket: str) -> None:
        self._objects, self._chain, self._bucket = objects, chain, bucket

    def begin(self, step_uid: str, dataset: Dataset, origin: StepOrigin) -> None:
        """N-CREATE: the first version. Raises StepRefused."""
        check_begun(dataset)
        first = self._read(step_uid, 1)
        if first is None:
            first = self._write(step_uid, 1, dataset, origin)
        elif first.dataset != dataset or first.site != origin.site:
            raise StepRefused(DUPLICATE)
        self._publish(first)

    def change(self, step_uid: str, said: Dataset, origin: StepOrigin) -> tuple[str, ...]:
        """N-SET: the next version; the attributes that were left as they were. Raises StepRefused."""
        # Step 1
        last = self._last(step_uid)
        if last is None:
            raise StepRefused(NO_SUCH_INSTANCE)
        if last.site != origin.site:
            raise StepRefused(NOT_AUTHORIZED)
        after, ignored = changed(last.dataset, said)
        if after == last.dataset:  # it came again, or says nothing new
            self._publish(last)
            return ignored
        if last.ended:
            raise StepRefused(PROCESSING_FAILURE, error_id=NO_LONGER)
        if last.version >= VERSIONS_MAX:
            raise StepRefused(RESOURCE_LIMITATION)
        self._publish(self._write(step_uid, last.version + 1, after, origin))
        return ignored

    def _last(self, step_uid: str) -> StepDocument | None:
        last = None
        for version in range(1, VERSIONS_MAX + 1):
            found = self._read(step_uid, version)
            if found is None:
                break
            last = found
        return last

    def _read(self, step_uid: str, version: int) -> StepDocument | None:
        try:
            return decode_step(self._objects.get(self._bucket, document_key(step_uid, version)))
        except NotFound:
            return None

    def _write(self, step_uid: str, version: int, dataset: Dataset, origin: StepOrigin) -> StepDocument:
        document = StepDocument(
            step_uid=step_uid,
            version=version,
            site=origin.site,
            calling_ae=origin.ae_title,
            recorded=clock.rfc3339(clock.now()),
            dataset=dataset,
        )
        data = encode_step(document)
        digest = hashlib.sha256(data).hexdigest()
        # Step 2
        try:
            key = document_key(step_uid, version)
            self._objects.put(self._bucket, key, data, sha256=digest, content_type="application/json")
        except Defect as taken:  # the same step on two associations at once: this one is told to try again
            raise StepRefused(PROCESSING_FAILURE) from taken
        faults.point("steps.after-document")
        return document

    def _publish(self, document: StepDocument) -> None:
        # Step 3
        event = event_of(document, self._bucket)
        if event is not None:
            self._chain.publish(event, id=event_id(document), subject=document.step_uid).kept.result(KEPT_S)


def event_of(document: StepDocument, bucket: str) -> StepStarted | StepEnded | None:
    """What a version means: None where a step goes on."""
    data = encode_step(document)
    dataset = document.dataset
    common: dict[str, Any] = {
        "step_uid": document.step_uid,
        "version": document.version,
        "study_uids": steps.study_uids(dataset),
        "site": document.site,
        "station_ae": steps.value(dataset, "00400241")[:16],
        "modality": steps.value(dataset, "00080060")[:16],
        "recorded": document.recorded,
        "bucket": bucket,
        "document_key": document_key(document.step_uid, document.version),
        "document_size": len(data),
        "document_sha256": hashlib.sha256(data).hexdigest(),
    }
    if document.ended:
        return StepEnded(
            **common,
            outcome=steps.OUTCOMES[document.status],
            series=len(steps.series_uids(dataset)),
            instances=len(steps.sop_uids(dataset)),
        )
    return StepStarted(**common) if document.version == 1 else None


def event_id(document: StepDocument) -> str:
    """Id of the event of a version."""
    return derived_id("order.step", document.step_uid, document.version)
