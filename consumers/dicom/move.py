"""C-MOVE (PS3.4 §C.4.2): instances are stored, on associations of this archive's own, at an AE of the AE table.

A destination that is slow or away costs the association that asked, nobody else: each request has a thread already,
and associations to one destination and to all are bounded.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom.dimse_primitives import C_MOVE

from consumers.dicom.retrieval import (
    CANCELLED,
    CANNOT_COUNT,
    CANNOT_SEND,
    DESTINATION_UNKNOWN,
    MOVE_MODELS,
    UNABLE,
    Progress,
)
from consumers.dicom.sending import NO_CONTEXT, PROCESSING_FAILURE, begun, by_syntax, context_for, data_set, proposals
from consumers.dicom.services import DicomRoom, who
from consumers.dicom.transfer import Answers, Retrieval, Study, counted
from infra import ae_table, telemetry
from infra.ae_table import ANY, Ae
from infra.dicom_command import Originator, store_command
from infra.dicom_exchange import Context, Exchange, Gone
from infra.dicom_scu import Outgoing, Proposed, Refused, Waits
from infra.ports import Row
from infra.tls import Client
from schemas.errors import SijilError, Transient

log = telemetry.logger(__name__)

WAIT_S = 10.0
"""For a free place among the associations to a destination."""
OF_ONE_DESTINATION = 4
"""A destination has at most this part (1/4) of all places."""
REOPENED_MAX = 3
"""How often a broken association to a destination is opened again for one request."""


class Places:
    """Associations that this archive may have open, altogether and to one destination."""

    def __init__(self, total: int) -> None:
        self._total, self._each = total, max(1, total // OF_ONE_DESTINATION)
        self._used: Counter[str] = Counter()
        self._free = threading.Condition()

    @contextmanager
    def taken(self, destination: str, timeout_s: float = WAIT_S) -> Iterator[None]:
        """A place. Raises Refused when none is free in time."""
        with self._free:
            if not self._free.wait_for(lambda: self._has_room(destination), timeout_s):
                raise Refused("too many associations are open")
            self._used[destination] += 1
        try:
            yield
        finally:
            with self._free:
                self._used[destination] -= 1
                self._free.notify_all()

    def _has_room(self, destination: str) -> bool:
        return self._used[destination] < self._each and self._used.total() < self._total


class Mover:
    """Answers C-MOVE."""

    def __init__(
        self,
        room: DicomRoom,
        ae_title: str,
        places: Places,
        waits: Waits | None = None,
        tls: Client | None = None,
    ) -> None:
        self._room, self._ae_title, self._places, self._waits, self._tls = room, ae_title, places, waits, tls

    def move(self, exchange: Exchange) -> None:
        """One request, on the association's own thread."""
        answers = Answers(exchange, "move", C_MOVE)
        title = str(exchange.request.MoveDestination).strip()
        progress = Progress(0)
        try:
            destination = self._destination(title)
            if destination is None:
                answers.last(DESTINATION_UNKNOWN, comment="the destination has no address in the AE table")
                return
            retrieval = Retrieval(self._room, exchange, answers, who(exchange.peer), "dicom-move", title)
            studies = retrieval.studies(MOVE_MODELS.get(exchange.context.abstract_syntax, ()))
            if studies is None:
                return
            progress = Progress(sum(len(s.rows) for s in studies))
            with self._places.taken(title):
                sender = _Sender(retrieval, destination, self._ae_title, self._waits, self._tls, progress)
                finished = all(sender.send(study) for study in studies)
            answers.last(progress.status() if finished else CANCELLED, progress, sender.comment)
        except Gone:
            log.info("c-move: the requester has gone", ae_title=exchange.peer.calling_ae)
        except Refused as error:
            answers.last(CANNOT_SEND, progress, str(error))
        except Transient as error:
            log.warning("c-move: stopped", reason=type(error).__name__)
            answers.last(CANNOT_COUNT, progress)
        except SijilError as error:
            log.error("c-move failed", error=error)
            answers.last(UNABLE, progress)

    def _destination(self, title: str) -> Ae | None:
        """Where a title listens; None if the AE table does not say. Raises Transient."""
        table = self._room.loop.call(ae_table.read(self._room.room.views.tables))
        found = next((ae for ae in table if ae.ae_title == title != ANY and ae.port), None)
        return found if found is not None and ae_table.is_one_host(found.host) else None


class _Sender:
    """The sub-operations of one request."""

    def __init__(
        self,
        retrieval: Retrieval,
        destination: Ae,
        ae_title: str,
        waits: Waits | None,
        tls: Client | None,
        progress: Progress,
    ) -> None:
        self._retrieval, self._destination, self._progress = retrieval, destination, progress
        self._ae_title, self._waits, self._tls = ae_title, waits, tls
        self._reopened = 0
        self.comment = ""
        exchange = retrieval.exchange
        self._originator = Originator(exchange.peer.calling_ae, exchange.request.MessageID)

    def send(self, study: Study) -> bool:
        """Whether all instances were tried: False when the request was cancelled. Raises Gone, Transient."""
        with self._retrieval.recorded(study):
            return all(self._send_some(proposed, rows) for proposed, rows in proposals(study.rows))

    def _send_some(self, proposed: list[Proposed], rows: list[Row]) -> bool:
        left = list(rows)
        while left:
            try:
                if not self._on_one(proposed, left):
                    return False
            except Refused as error:
                log.warning("c-move: association ended", ae_title=self._destination.ae_title, reason=str(error))
                self.comment = str(error)
                self._reopened += 1
                if self._reopened > REOPENED_MAX:
                    for row in left:
                        counted(self._progress, row, PROCESSING_FAILURE, "no-association")
                    return True
        return True

    def _on_one(self, proposed: list[Proposed], left: list[Row]) -> bool:
        """Send on one association, taking off `left` what was tried. Raises Refused when it breaks."""
        with Outgoing(self._destination, self._ae_title, self._waits, tls=self._tls) as association:
            association.associate(proposed)
            contexts = by_syntax(association.contexts)
            while left:
                if self._retrieval.stopped():
                    return False
                row = left[0]
                context = context_for(row, contexts)
                if context is None:
                    counted(self._progress, row, NO_CONTEXT, "no-context")
                    self.comment = "no accepted transfer syntax for some"
                else:
                    self._one(association, context, left)
                left.pop(0)
                self._retrieval.answers.pending(self._progress)
        return True

    def _one(self, association: Outgoing, context: Context, left: list[Row]) -> None:
        row = left[0]
        try:
            pieces = begun(data_set(self._retrieval.room, row, context.transfer_syntax, self._retrieval.sent))
        except SijilError as error:
            counted(self._progress, row, PROCESSING_FAILURE, type(error).__name__)
            return
        message_id = association.next_id()
        command = store_command(message_id, row["sop_class"], row["sop_uid"], self._originator)
        try:
            status = association.ask(context, message_id, command, pieces)
        except Refused:
            raise
        except SijilError as error:
            # Half of it is sent: only another association can go on.
            left.pop(0)
            counted(self._progress, row, PROCESSING_FAILURE, type(error).__name__)
            raise Refused("an instance could not be read to its end") from error
        counted(self._progress, row, status)
