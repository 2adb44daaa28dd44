"""pynetdicom with its hot spots replaced: what of its association is ours, and why.

pynetdicom keeps the protocol: state machine, timers, negotiation, every service but storage. As it is, its two threads
per association each look for work every millisecond, read 4 KiB at a time and hold a whole instance in memory some five
times over. Replaced here are

- the waiting (`EventDul.run_reactor`, `infra.dicom_association`): both threads sleep until a socket, a queue or a
  deadline wakes them; what they do then is pynetdicom's, step by step;
- P-DATA of an established association (`EventDul._p_data`): read from the socket straight into the memory that the
  receiving side offers, and C-STORE answered right there. For other services the same fragments go pynetdicom's way;
- the choice of presentation contexts (`TableAcse`), which pynetdicom cannot make for SOP classes it does not know,
nor in
  the order of the sender's transfer syntaxes.

On this path pynetdicom's notification events for PDUs and data are not raised.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import P_DATA

from infra import telemetry
from infra.dicom_command import (
    C_STORE_RQ,
    StoreRequest,
    StoreStatus,
    command_field,
    command_pdu,
    elements,
    message_pdus,
    store_request,
    store_response,
)
from infra.dicom_services import Peer, Services, StoreSession, StoreSink
from schemas.errors import Invalid

log = telemetry.logger(__name__)

COMMAND_BYTES_MAX = 64 * 1024
"""Of a command set; real ones have some 200."""
OTHER_BYTES_MAX = 16 << 20
"""Of a dataset that is not an instance to store: an identifier, an N-ACTION's information."""
PDU_BYTES_MAX = 1 << 20
"""Of a PDU that is read as a whole: everything but P-DATA."""
SCRATCH_BYTES = 256 * 1024
LOOK_S = 0.5
"""Longest sleep of a reactor: pynetdicom's own timers are looked at so often."""
DATA_SET_FAILED = StoreStatus(0x0110, "processing failure")
"""PS3.7 §C.5.5."""


class ProtocolError(Exception):
    """The peer has broken PS3.8: the association is aborted."""


# ------------------------------------------------------------------------------------------------ waking


class WakingQueue(queue.Queue[Any]):
    """A queue that calls `wake` for every item."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._wake()


class _DrainSink:
    """Takes what must be read though it cannot be stored."""

    def __init__(self, told: StoreStatus) -> None:
        self._told = told
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))

    def into(self, length: int) -> memoryview:
        return self._scratch[:length]

    def took(self, length: int) -> None:
        """Forgotten."""

    def finish(self) -> StoreStatus:
        return self._told

    def discard(self) -> None:
        """Nothing is kept."""


# ------------------------------------------------------------------------------------------------ upper layer


class EventDul(DULServiceProvider):
    """The upper layer of one association; see the module. `news` is set when there is something for its own thread."""

    def __init__(self, assoc: Association, services: Services, peer: Callable[[], Peer], news: threading.Event) -> None:
        super().__init__(assoc)
        self.daemon = True
        self._services, self._peer, self._news = services, peer, news
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = threading.Lock()
        self.event_queue = WakingQueue(self.wake)
        self.to_provider_queue = WakingQueue(self.wake)
        self.to_user_queue = WakingQueue(news.set)
        self._pdu_head = bytearray(6)
        self._pdv_head = bytearray(6)
        self._command = bytearray()
        self._session: StoreSession | None = None
        self._sink: StoreSink | None = None
        self._request: tuple[StoreRequest, int] | None = None
        self._other_bytes = 0
        self._sending = threading.Lock()
        """Held for a whole message: its fragments stay together."""

    def wake(self) -> None:
        """End the reactor's sleep."""
        with self._closing:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def kill_dul(self) -> None:
        """Kill the reactor and stop the thread."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """Stop the reactor if the state is Sta1; True if it has stopped."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    def run_reactor(self) -> None:
        """pynetdicom's loop, asleep while there is nothing to do."""
        try:
            self._idle_timer.start()
            self.assoc._dul_ready.set()
            self._loop()
        finally:
            self._end_store()
            if (raw := self._raw()) is not None:  # it ended by an error: the peer is not left waiting
                with suppress(OSError):
                    raw.shutdown(socket.SHUT_RDWR)
                raw.close()
            with self._closing:
                os.close(self._wake_fd)
                self._wake_fd = -1
            self._news.set()

    def _loop(self) -> None:
        while not self._kill_thread:
            if self.artim_timer.expired:
                self.event_queue.put("Evt18")
            try:
                if not self._process_recv_primitive() and self._is_transport_event():
                    self._idle_timer.restart()
            except Exception as error:  # noqa: BLE001 (as pynetdicom: whatever it is, the association ends)
                log.error("dicom association failed", error=error)
                self._abort_hard()
                return
            try:
                event = self.event_queue.get(block=False)
            except queue.Empty:
                self._sleep()
                continue
            try:
                self.state_machine.do_action(event)
            except Exception as error:  # noqa: BLE001 (an event that its state does not know, and whatever else)
                log.error("dicom association failed", error=error)
                self._abort_hard()
                return
            if event == "Evt17" and self.state_machine.current_state == "Sta1":
                self.to_user_queue.put(None)  # who waits for an A-ASSOCIATE-RQ need not wait for its timeout

    def _abort_hard(self) -> None:
        """Past the state machine, which an exception may have left in any state."""
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 0x02, 0x00
        self._send(pdu)
        self.assoc.is_aborted, self.assoc.is_established = True, False
        self.assoc._kill = self._kill_thread = True

    def _sleep(self) -> None:
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        raw = self._raw()
        if raw is not None:
            if isinstance(raw, ssl.SSLSocket) and raw.pending():
                return
            poll.register(raw, select.POLLIN)
        for fd, _ in poll.poll(LOOK_S * 1000):
            if fd == self._wake_fd:
                os.eventfd_read(fd)

    def _raw(self) -> socket.socket | None:
        return self.socket.socket if self.socket is not None and self.socket._is_connected else None

    # -------------------------------------------------------------------------------------------- sending

    def send_message(
        self, context_id: int, command: bytes, data_set: Iterable[bytes | memoryview] | None, maximum: int
    ) -> None:
        """Send a whole message from any thread, its data set as it comes. Raises OSError when the connection is gone.

        What `data_set` raises leaves a message behind that has no end: the caller aborts the association.
        """
        with self._sending:
            for head, fragment in message_pdus(context_id, command, data_set, maximum):
                raw = self._raw()
                if raw is None:
                    raise ConnectionError("closed by the peer")
                try:
                    sent = raw.sendmsg([head, fragment])
                    if sent < len(head) + len(fragment):
                        raw.sendall((head + bytes(fragment))[sent:])
                except OSError:
                    self.event_queue.put("Evt17")  # transport connection closed
                    raise
                self._idle_timer.restart()

    def send_pdus(self, pdus: Iterable[bytes]) -> None:
        """Send a message that is encoded already, from any thread, past pynetdicom's own queue. Raises OSError."""
        with self._sending:
            for pdu in pdus:
                raw = self._raw()
                if raw is None:
                    raise ConnectionError("closed by the peer")
                raw.sendall(pdu)

    def _send(self, pdu: Any) -> None:
        with self._sending:
            super()._send(pdu)

    # -------------------------------------------------------------------------------------------- reading

    def _read_pdu_data(self) -> None:
        """One PDU: P-DATA of an established association here, everything else as pynetdicom does."""
        raw = self._raw()
        if raw is None:
            return
        try:
            _fill(raw, memoryview(self._pdu_head))
            kind, _, length = struct.unpack(">BBI", self._pdu_head)
            if kind == 0x04 and self.state_machine.current_state == "Sta6":
                self._p_data(raw, length)
                return
            if not 0x01 <= kind <= 0x07 or length > PDU_BYTES_MAX:
                raise ProtocolError
            pdu = bytearray(6 + length)
            pdu[:6] = self._pdu_head
            _fill(raw, memoryview(pdu)[6:])
        except OSError:
            self.event_queue.put("Evt17")  # transport connection closed
            return
        except ProtocolError:
            self.event_queue.put("Evt19")  # unrecognised or invalid PDU
            return
        try:
            decoded, event = self._decode_pdu(pdu)
        except Exception:  # noqa: BLE001 (pynetdicom's decoders raise what they like)
            self.event_queue.put("Evt19")
            return
        self.event_queue.put(event)
        self._recv_pdu.put(decoded)

    def _p_data(self, raw: socket.socket, left: int) -> None:
        """The presentation data values of a P-DATA-TF (PS3.8 §9.3.5.1, Annex E)."""
        while left:
            if left < len(self._pdv_head):
                raise ProtocolError
            _fill(raw, memoryview(self._pdv_head))
            length, context_id, control = struct.unpack(">IBB", self._pdv_head)
            left -= 4 + length
            if length < 2 or left < 0:
                raise ProtocolError
            if control & 0x01:
                self._command_fragment(raw, length - 2, context_id, last=bool(control & 0x02))
            elif self._sink is not None:
                self._store_fragment(raw, length - 2, last=bool(control & 0x02))
            else:
                self._other_fragment(raw, length - 2, context_id, control)

    def _command_fragment(self, raw: socket.socket, length: int, context_id: int, *, last: bool) -> None:
        if self._sink is not None or len(self._command) + length > COMMAND_BYTES_MAX:
            raise ProtocolError
        fragment = bytearray(length)
        _fill(raw, memoryview(fragment))
        self._command += fragment
        if not last:
            return
        command, self._command = bytes(self._command), bytearray()
        self._other_bytes = 0
        try:
            found = elements(command)
            if self._services.store is not None and command_field(found) == C_STORE_RQ:
                self._begin_store(store_request(found), context_id)
                return
        except Invalid as error:
            raise ProtocolError from error
        self._hand_over(context_id, b"\x03" + command)

    def _other_fragment(self, raw: socket.socket, length: int, context_id: int, control: int) -> None:
        self._other_bytes += length
        if self._other_bytes > OTHER_BYTES_MAX:
            raise ProtocolError
        fragment = bytearray(1 + length)
        fragment[0] = control
        _fill(raw, memoryview(fragment)[1:])
        self._hand_over(context_id, bytes(fragment))

    def _hand_over(self, context_id: int, value: bytes) -> None:
        """A fragment goes pynetdicom's way."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, value))
        self.assoc.dimse.receive_primitive(primitive)

    # -------------------------------------------------------------------------------------------- C-STORE

    def _begin_store(self, request: StoreRequest, context_id: int) -> None:
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise ProtocolError
        self._request = (request, context_id)
        self._sink = self._open_sink(request, str(context.transfer_syntax[0]))
        if not request.has_data_set:
            self._finish_store()

    def _open_sink(self, request: StoreRequest, transfer_syntax: str) -> StoreSink:
        try:
            if self._session is None and self._services.store is not None:
                self._session = self._services.store(self._peer())
            if self._session is not None:
                return self._session.begin(request, transfer_syntax)
        except Exception as error:  # noqa: BLE001 (the sender gets an answer, whatever it is)
            log.error("c-store failed to begin", error=error)
        return _DrainSink(DATA_SET_FAILED)

    def _store_fragment(self, raw: socket.socket, left: int, *, last: bool) -> None:
        while left and self._sink is not None:
            place = self._sink.into(left)
            length = len(place)
            _fill(raw, place)
            place.release()
            left -= length
            try:
                self._sink.took(length)
            except Exception as error:  # noqa: BLE001 (the rest is read all the same, then the sender is told)
                log.error("c-store failed", error=error)
                self._sink.discard()
                self._sink = _DrainSink(DATA_SET_FAILED)
        if last:
            self._finish_store()

    def _finish_store(self) -> None:
        if self._sink is None or self._request is None:
            return
        (request, context_id), sink = self._request, self._sink
        self._request = self._sink = None
        try:
            told = sink.finish()
        except Exception as error:  # noqa: BLE001 (the sender gets an answer, whatever it is)
            log.error("c-store failed", error=error)
            told = DATA_SET_FAILED
        self._idle_timer.restart()
        if self.socket is not None:
            with self._sending:
                self.socket.send(command_pdu(context_id, store_response(request, told)))

    def _end_store(self) -> None:
        if self._sink is not None:
            self._sink.discard()
            self._sink = None
        if self._session is not None:
            self._session.end()
            self._session = None


def _fill(raw: socket.socket, view: memoryview) -> None:
    """Read exactly so many bytes. Raises OSError, ConnectionError when the peer has closed among them."""
    flags = 0 if isinstance(raw, ssl.SSLSocket) else socket.MSG_WAITALL
    while view:
        count = raw.recv_into(view, len(view), flags)
        if not count:
            raise ConnectionError("closed by the peer")
        view = view[count:]
