"""N-ACTION of the Storage Commitment Push Model (PS3.4 §J.3.2): answered when the request is durable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pynetdicom.dimse_primitives import N_ACTION

from infra import telemetry
from infra.dicom_exchange import Exchange
from producers.commitment.delivery import Delivery
from producers.commitment.transaction import (
    DUPLICATE_TRANSACTION,
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST,
    of_information,
)
from producers.commitment.worker import Commitments, Duplicate
from producers.dicom.contexts import choose
from producers.dicom.syntaxes import EXPLICIT_LE, IMPLICIT_LE
from schemas.errors import Invalid, Overloaded, SijilError
from schemas.roles import Permission, Scope, scope_of

log = telemetry.logger(__name__)

# N-ACTION statuses (PS3.7 §10.1.4.1.10, Annex C).
SUCCESS: Final = 0x0000
NO_SUCH_SOP_INSTANCE: Final = 0x0112
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_SOP_CLASS: Final = 0x0118
NO_SUCH_ACTION: Final = 0x0123
NOT_AUTHORIZED: Final = 0x0124
RESOURCE_LIMITATION: Final = 0x0213

STATUSES: Final = {
    SUCCESS: "the request is durable; the result is reported when it is final",
    PROCESSING_FAILURE: "the request could not be made durable",
    NO_SUCH_SOP_INSTANCE: f"the SOP Instance is not {PUSH_MODEL_INSTANCE}",
    INVALID_ARGUMENT: "the Transaction UID or a reference is missing or no UID, or the information cannot be read",
    NO_SUCH_SOP_CLASS: "the SOP Class is not the Storage Commitment Push Model",
    NO_SUCH_ACTION: "the Action Type is not 1",
    DUPLICATE_TRANSACTION: "the Transaction UID is in use for other instances",
    NOT_AUTHORIZED: "this AE may not store",
    RESOURCE_LIMITATION: "too many transactions are open",
}

SYNTAXES: Final = frozenset({EXPLICIT_LE, IMPLICIT_LE})
RESPONSES = telemetry.Counter("sijil_n_action_responses", "N-ACTION responses by status", ["status"])


def accept(abstract_syntax: str, offered: Iterable[str]) -> str | None:
    """The transfer syntax in which the Push Model's context is accepted."""
    return choose(offered, SYNTAXES) if abstract_syntax == PUSH_MODEL else None


class CommitmentScp:
    """Answers N-ACTION."""

    def __init__(self, commitments: Commitments, delivery: Delivery) -> None:
        self._commitments, self._delivery = commitments, delivery

    def action(self, exchange: Exchange) -> None:
        """One request."""
        request = exchange.request
        status, key = self._take(exchange)
        response = N_ACTION()
        response.AffectedSOPClassUID = request.RequestedSOPClassUID
        response.AffectedSOPInstanceUID = request.RequestedSOPInstanceUID
        response.ActionTypeID = request.ActionTypeID
        response.Status = status
        RESPONSES.labels(f"{status:04X}").inc()
        exchange.respond(response)
        if key:
            # Only now: the report comes behind the response.
            self._delivery.asked_on(exchange.peer.calling_ae, exchange.line, exchange.context)
            self._commitments.go(key)
            self._commitments.retry(exchange.peer.calling_ae)

    def _take(self, exchange: Exchange) -> tuple[int, str]:
        """(status, the transaction's key if it was accepted)."""
        request = exchange.request
        if exchange.context.abstract_syntax != PUSH_MODEL or request.RequestedSOPClassUID != PUSH_MODEL:
            return NO_SUCH_SOP_CLASS, ""
        if request.RequestedSOPInstanceUID != PUSH_MODEL_INSTANCE:
            return NO_SUCH_SOP_INSTANCE, ""
        if request.ActionTypeID != REQUEST:
            return NO_SUCH_ACTION, ""
        peer = exchange.peer
        if peer.caller is None or scope_of(peer.caller.role, Permission.STUDY_STORE) is Scope.NONE:
            return NOT_AUTHORIZED, ""
        try:
            uid, references = of_information(exchange.data_set(request.ActionInformation))
            return SUCCESS, self._commitments.request(uid, references, ae_title=peer.calling_ae, address=peer.address)
        except Duplicate:
            return DUPLICATE_TRANSACTION, ""
        except Invalid as error:
            log.info("storage commitment refused", ae_title=peer.calling_ae, reason=error.reason)
            return INVALID_ARGUMENT, ""
        except Overloaded:
            return RESOURCE_LIMITATION, ""
        except (SijilError, OSError) as error:
            log.error("storage commitment not kept", error=error)
            return PROCESSING_FAILURE, ""
