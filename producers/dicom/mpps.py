"""N-CREATE and N-SET of the Modality Performed Procedure Step (PS3.4 Annex F) at the DICOM door.

Success is answered when the document is in S3 and the event on this machine's disk. Statuses are those of
`producers.dicom.performed_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import N_CREATE, N_SET

from infra import clock, telemetry
from infra.dicom_door import DicomDoor
from infra.dicom_exchange import Exchange
from producers.dicom.contexts import choose
from producers.dicom.performed_step import (
    ATTRIBUTES_IGNORED,
    INVALID_VALUE,
    MPPS,
    NO_SUCH_CLASS,
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    StepRefused,
    read,
)
from producers.dicom.syntaxes import EXPLICIT_LE, IMPLICIT_LE
from producers.steps import StepOrigin, Steps
from schemas.errors import Invalid, Overloaded, SijilError
from schemas.identity import check_uid
from schemas.roles import Permission, Scope, scope_of

log = telemetry.logger(__name__)

SYNTAXES = frozenset({EXPLICIT_LE, IMPLICIT_LE})
ERROR_COMMENT_MAX = 64
RESPONSES = telemetry.Counter("sijil_mpps_responses", "N-CREATE and N-SET responses of MPPS", ["operation", "status"])

Take = Callable[[str, Exchange, StepOrigin], tuple[str, ...]]


def register(door: DicomDoor) -> None:
    """Add MPPS to the door."""
    scp = MppsScp(Steps(door.objects, door.chain, bucket=door.settings.bucket_documents), door.settings.site)
    door.contexts.append(accept)
    door.requests[N_CREATE] = scp.create
    door.requests[N_SET] = scp.set


def accept(abstract_syntax: str, offered: Iterable[str]) -> str | None:
    """The transfer syntax in which a context of MPPS is accepted."""
    return choose(offered, SYNTAXES) if abstract_syntax == MPPS else None


class MppsScp:
    """Answers N-CREATE and N-SET."""

    def __init__(self, steps: Steps, home_site: str) -> None:
        self._steps, self._home_site = steps, home_site

    def create(self, exchange: Exchange) -> None:
        """An examination begins. A device that gives the step no UID is told ours (PS3.7 §10.1.5.1.3)."""
        request = exchange.request
        uid = str(request.AffectedSOPInstanceUID or "") or f"2.25.{clock.uuid7().int}"

        def take(step_uid: str, exchange: Exchange, origin: StepOrigin) -> tuple[str, ...]:
            self._steps.begin(step_uid, _said(exchange, request.AttributeList), origin)
            return ()

        self._answer(exchange, N_CREATE(), str(request.AffectedSOPClassUID or ""), uid, take)

    def set(self, exchange: Exchange) -> None:
        """It goes on, or ends."""
        request = exchange.request

        def take(step_uid: str, exchange: Exchange, origin: StepOrigin) -> tuple[str, ...]:
            return self._steps.change(step_uid, _said(exchange, request.ModificationList), origin)

        uid = str(request.RequestedSOPInstanceUID or "")
        self._answer(exchange, N_SET(), str(request.RequestedSOPClassUID or ""), uid, take)

    def _answer(self, exchange: Exchange, response: Any, sop_class: str, uid: str, take: Take) -> None:
        operation = type(response).__name__
        tags: tuple[str, ...] = ()
        try:
            if sop_class != MPPS:
                raise StepRefused(NO_SUCH_CLASS)
            tags = take(_checked(uid), exchange, self._origin(exchange))
            response.Status = ATTRIBUTES_IGNORED if tags else SUCCESS
        except StepRefused as refused:
            tags, response.Status = refused.tags, refused.status
            if refused.error_id is not None:
                response.ErrorID = refused.error_id
                response.ErrorComment = "the step has ended and may no longer be updated"
            elif tags:
                response.ErrorComment = f"at fault: {', '.join(tags)}"[:ERROR_COMMENT_MAX]
            log.info("mpps refused", status=f"{refused.status:04X}", ae_title=exchange.peer.calling_ae)
        except Overloaded:
            response.Status = RESOURCE_LIMITATION
        except (SijilError, FutureTimeout) as error:
            log.error("mpps not kept", error=error, ae_title=exchange.peer.calling_ae)
            response.Status = PROCESSING_FAILURE
        if tags and operation == N_SET.__name__:  # N-CREATE's response has no place for them (PS3.7 Table 10.3-9)
            response.AttributeIdentifierList = [int(tag, 16) for tag in tags]
        response.AffectedSOPClassUID = sop_class
        response.AffectedSOPInstanceUID = uid
        RESPONSES.labels(operation, f"{response.Status:04X}").inc()
        exchange.respond(response)

    def _origin(self, exchange: Exchange) -> StepOrigin:
        caller = exchange.peer.caller
        if caller is None or scope_of(caller.role, Permission.STUDY_STORE) is Scope.NONE:
            raise StepRefused(NOT_AUTHORIZED)
        return StepOrigin(next(iter(sorted(caller.sites)), self._home_site), exchange.peer.calling_ae)


def _said(exchange: Exchange, attributes: BytesIO | None) -> Any:
    return read(attributes.getvalue() if attributes else b"", exchange.context.transfer_syntax)


def _checked(uid: str) -> str:
    try:
        check_uid(uid)
    except Invalid as error:
        raise StepRefused(INVALID_VALUE) from error
    return uid
