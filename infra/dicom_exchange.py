"""A request of DIMSE that a room answers itself, and what may be sent on its association besides the answer.

pynetdicom decodes the request and keeps the association; what it would do for the service is not used. So responses
carry exactly the statuses a room chooses, datasets are sent from the pieces they are read in, and a notification can
leave on an association that is still open without stopping what the peer does on it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import _RSP_TO_MESSAGE
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import PresentationContext

from infra import clock
from infra.dicom_command import event_report_command, store_command
from infra.dicom_services import Peer
from schemas.errors import Invalid

if TYPE_CHECKING:
    from pydicom import Dataset

    from infra.dicom_association import EventAssociation

LITTLE = {"1.2.840.10008.1.2": True, "1.2.840.10008.1.2.1": False}
"""Transfer syntaxes of identifiers and information: whether the VR is implicit."""
MESSAGE_IDS = 0xFFFF

Handler = Callable[["Exchange"], None]
"""Answers a request. Runs on the association's own thread; an exception aborts the association."""


class Gone(Exception):
    """The association has ended."""


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    as_scu: bool
    """Whether this side may send requests of the service on it (role selection, PS3.7 §D.3.3.4)."""

    @classmethod
    def of(cls, context: PresentationContext) -> Context:
        """As pynetdicom negotiated it."""
        syntaxes = str(context.abstract_syntax), str(context.transfer_syntax[0])
        return cls(int(context.context_id or 0), *syntaxes, bool(context.as_scu))


class Line:
    """What this side sends on an association of its own accord. Thread-safe, except `store`."""

    def __init__(self, association: EventAssociation) -> None:
        self._association = association
        self._lock = threading.Lock()
        self._message_id = 0
        self._reports: dict[int, Future[int]] = {}

    @property
    def is_open(self) -> bool:
        """Whether the association is established."""
        return self._association.is_established and not self._association.ending()

    def contexts(self) -> list[Context]:
        """Those accepted."""
        return [Context.of(c) for c in self._association.accepted_contexts]

    def report(self, context: Context, sop_class: str, sop_uid: str, event_type: int, information: Dataset) -> Any:
        """Send an N-EVENT-REPORT-RQ; a Future of the response's status. Raises OSError, Gone."""
        if not self.is_open:
            raise Gone
        message_id, future = self._next_id(), Future[int]()
        self._reports[message_id] = future
        command = event_report_command(message_id, sop_class, sop_uid, event_type)
        self._send(context, command, [encoded(information, context.transfer_syntax)])
        return future

    def store(
        self, context: Context, sop_class: str, sop_uid: str, data_set: Iterable[bytes | memoryview], timeout_s: float
    ) -> int:
        """C-STORE to the peer of a request under way, by its thread; the response's status. Raises OSError, Gone.

        What `data_set` raises comes through after the association has been aborted: the message has no end.
        """
        message_id = self._next_id()
        try:
            self._send(context, store_command(message_id, sop_class, sop_uid), data_set)
        except BaseException:
            self._association.abort()
            raise
        deadline = clock.monotonic() + timeout_s
        while True:
            answer = self._association.next_message(deadline - clock.monotonic())
            if isinstance(answer, C_STORE) and answer.MessageIDBeingRespondedTo == message_id:
                return int(answer.Status or 0)
            if answer is None or not self.answered(answer):  # too late, or another request in between
                self._association.abort()
                raise Gone

    def answered(self, message: Any) -> bool:
        """Whether `message` is the response to a notification of ours; it is then taken."""
        if not isinstance(message, N_EVENT_REPORT) or message.MessageIDBeingRespondedTo is None:
            return False
        future = self._reports.pop(message.MessageIDBeingRespondedTo, None)
        if future is not None:
            future.set_result(int(message.Status or 0))
        return True

    def end(self) -> None:
        """The association has ended: nobody answers any more."""
        while self._reports:
            _, future = self._reports.popitem()
            future.set_exception(Gone())

    def _send(self, context: Context, command: bytes, data_set: Iterable[bytes | memoryview]) -> None:
        maximum = self._association.dimse.maximum_pdu_size
        self._association.upper.send_message(context.context_id, command, data_set, maximum)

    def _next_id(self) -> int:
        with self._lock:
            self._message_id = self._message_id % MESSAGE_IDS + 1
            return self._message_id


class Exchange:
    """One request and its answers."""

    def __init__(self, association: EventAssociation, request: Any, context: Context) -> None:
        self._association, self.request, self.context = association, request, context
        self._line = association.line

    @property
    def peer(self) -> Peer:
        """Who asks."""
        return self._association.peer()

    @property
    def extended(self) -> bytes:
        """What the requestor has said of the context's SOP class in its extended negotiation (PS3.7 §D.3.3.5)."""
        information = self._association.requestor.sop_class_extended
        return next((bytes(i) for uid, i in information.items() if str(uid) == self.context.abstract_syntax), b"")

    @property
    def line(self) -> Line:
        """The association, for what is sent besides the answer."""
        return self._line

    def data_set(self, data: BytesIO | None) -> Dataset:
        """An identifier or information of the request. Raises Invalid(`dimse-data-set`)."""
        if data is None:
            raise Invalid("dimse-data-set")
        try:
            found = decode(data, LITTLE[self.context.transfer_syntax], True)
            for _ in found.iterall():
                pass  # every value is read here, not where it is used
        except Exception as error:
            raise Invalid("dimse-data-set") from error
        return found

    def encoded(self, data_set: Dataset) -> BytesIO:
        """A dataset of an answer."""
        return BytesIO(encoded(data_set, self.context.transfer_syntax))

    def respond(self, response: Any) -> None:
        """Send a response primitive of pynetdicom's. What cannot be sent any more is dropped."""
        response.MessageIDBeingRespondedTo = self.request.MessageID
        message = _RSP_TO_MESSAGE[type(response)]()
        message.primitive_to_message(response)
        maximum = self._association.dimse.maximum_pdu_size
        pdus = [P_DATA_TF(p).encode() for p in message.encode_msg(self.context.context_id, maximum)]
        with suppress(OSError):
            self._association.upper.send_pdus(pdus)

    def cancelled(self) -> bool:
        """Whether the peer has sent a C-CANCEL for it (PS3.7 §9.3.2.3)."""
        return self.request.MessageID in self._association.dimse.cancel_req

    def gone(self) -> bool:
        """Whether there is nobody any more to answer to."""
        return self._association.ending()


def encoded(data_set: Dataset, transfer_syntax: str) -> bytes:
    """The dataset's bytes. Raises Invalid(`dimse-data-set`)."""
    data = encode(data_set, LITTLE[transfer_syntax], True)
    if data is None:
        raise Invalid("dimse-data-set")
    return bytes(data)


def taken(waiting: queue.Queue[Any], timeout_s: float) -> Any:
    """The next item, None if there is none in time."""
    try:
        return waiting.get(timeout=max(0.0, timeout_s))
    except queue.Empty:
        return None
