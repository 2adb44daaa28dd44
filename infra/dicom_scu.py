"""Associations that this archive opens: to report a storage commitment, to send what a C-MOVE asks for.

A blocking client on one socket, used by one thread. The PDUs of association control are pynetdicom's; messages are
written straight from the pieces of their datasets, so that memory is bounded by one piece, whatever an instance has.
Every wait has an end: connecting, the answer to the association, each PDU that is sent, each response.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import build_context

from infra.ae_table import Ae
from infra.dicom_command import answers, echo_command, elements, message_pdus, status_of
from infra.dicom_exchange import Context
from infra.tls import Client
from schemas.errors import Invalid, Transient
from schemas.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

CONTEXTS_MAX = 128
"""Of one association: their ids are odd and of one byte (PS3.8 §9.3.2.2)."""
MAXIMUM_PDU = 128 * 1024
PDU_BYTES_MAX = 1 << 20
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

_HEAD = struct.Struct(">BBI")
_VALUE_HEAD = struct.Struct(">IBB")


class Refused(Transient):
    """No association: nobody listens, it was rejected, or it ended before its time."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds: to connect, for the answer to the association, for a PDU to be taken, for a response."""

    connect_s: float = 10.0
    acse_s: float = 30.0
    network_s: float = 60.0
    dimse_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Proposed:
    """A presentation context to propose; `as_scp`: by role selection this side has the SCP's role in it."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    as_scp: bool = False


class Outgoing:
    """An association as a context manager: released at the end, aborted on an error."""

    def __init__(
        self, peer: Ae, calling: str, waits: Waits | None = None, *, host: str = "", tls: Client | None = None
    ) -> None:
        """Connects to where `peer` listens (`host` instead of its own, where that is a network). Raises Refused."""
        self._waits = waits or Waits()
        self._message_id = 0
        self._maximum = 0
        self.contexts: list[Context] = []
        """Accepted."""
        self._called, self._calling = peer.ae_title, calling
        if peer.tls and tls is None:
            raise Refused("it speaks TLS, and DICOM with TLS is not set up here (SIJIL_DICOM_TLS_CERTIFICATE)")
        address = host or peer.host, peer.port
        try:
            self._socket = socket.create_connection(address, self._waits.connect_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if peer.tls and tls is not None:
                self._socket = tls.wrap(self._socket, address[0], peer.certificate)
        except OSError as error:
            raise Refused(f"no connection: {type(error).__name__}") from error

    def __enter__(self) -> Outgoing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    def associate(self, proposed: Sequence[Proposed]) -> None:
        """Propose contexts; `contexts` are then those accepted. Raises Refused."""
        primitive = _request(self._called, self._calling, proposed)
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(primitive)
        self._socket.settimeout(self._waits.acse_s)
        try:
            self._socket.sendall(pdu.encode())
            kind, answer = self._pdu()
        except OSError as error:
            self._socket.close()
            raise Refused(f"no answer to the association: {type(error).__name__}") from error
        if kind == 0x03:
            self._socket.close()
            # PS3.8 §9.3.4: result, source and reason are the last three bytes.
            raise Refused(f"rejected: {','.join(str(b) for b in answer[7:10])}")
        if kind != 0x02:
            self.abort()
            raise Refused("no answer to the association: another PDU")
        self._accept(answer, proposed)

    def _accept(self, answer: bytes, proposed: Sequence[Proposed]) -> None:
        accepted = A_ASSOCIATE_AC()
        try:
            accepted.decode(answer)
            primitive = accepted.to_primitive()
        except Exception as error:  # pynetdicom's decoders raise what they like
            self.abort()
            raise Refused("the answer to the association cannot be read") from error
        self._maximum = primitive.maximum_length_received or 0
        for context in primitive.presentation_context_definition_results_list:
            if context.result == 0 and context.context_id is not None and context.context_id // 2 < len(proposed):
                what = proposed[context.context_id // 2]
                syntax = str(context.transfer_syntax[0])
                self.contexts.append(Context(context.context_id, what.abstract_syntax, syntax, not what.as_scp))

    def next_id(self) -> int:
        """Of the next message."""
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def echo(self) -> int:
        """Status of a C-ECHO (PS3.4 Annex A) on the first context. Raises Refused."""
        message_id = self.next_id()
        return self.ask(self.contexts[0], message_id, echo_command(message_id), None)

    def ask(
        self, context: Context, message_id: int, command: bytes, data_set: Iterable[bytes | memoryview] | None
    ) -> int:
        """Send a request; the status of its response. Raises Refused; what `data_set` raises comes through."""
        self._socket.settimeout(self._waits.network_s)
        for head, fragment in message_pdus(context.context_id, command, data_set, self._maximum):
            try:
                self._send(head, fragment)
            except OSError as error:
                raise Refused(f"the association broke: {type(error).__name__}") from error
        self._socket.settimeout(self._waits.dimse_s)
        try:
            found = elements(self._command())
            if answers(found) != message_id:
                raise Refused("a response to nothing that was asked")
            return status_of(found)
        except OSError as error:
            raise Refused(f"no response: {type(error).__name__}") from error
        except Invalid as error:
            raise Refused("a response that cannot be read") from error

    def _send(self, head: bytes, fragment: bytes | memoryview) -> None:
        if isinstance(self._socket, ssl.SSLSocket):  # it knows no sendmsg, and copies what it encrypts anyhow
            self._socket.sendall(head + bytes(fragment))
            return
        sent = self._socket.sendmsg([head, fragment])
        if sent < len(head) + len(fragment):
            self._socket.sendall((head + bytes(fragment))[sent:])

    def release(self) -> None:
        """End it as it should be ended; whoever does not answer is left."""
        with suppress(OSError, Refused):
            self._socket.settimeout(self._waits.connect_s)
            self._socket.sendall(A_RELEASE_RQ().encode())
            self._pdu()
        self._socket.close()

    def abort(self) -> None:
        """End it at once."""
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 0x00, 0x00
        with suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(pdu.encode())
        self._socket.close()

    def _command(self) -> bytes:
        """The command set of the next message. A dataset behind it would be a protocol error: none is expected."""
        command = b""
        while True:
            kind, body = self._pdu()
            if kind != 0x04:
                raise Refused("aborted" if kind == 0x07 else "released by the peer")
            at = 6
            while at + _VALUE_HEAD.size <= len(body):
                length, _, control = _VALUE_HEAD.unpack_from(body, at)
                if length < 2:
                    raise Refused("a response that cannot be read")
                if control & 0x01:
                    command += body[at + _VALUE_HEAD.size : at + 4 + length]
                at += 4 + length
                if control & 0x03 == 0x03:
                    return command

    def _pdu(self) -> tuple[int, bytes]:
        """(type, whole PDU). Raises OSError, Refused."""
        head = self._read(_HEAD.size)
        kind, _, length = _HEAD.unpack(head)
        if length > PDU_BYTES_MAX:
            raise Refused("a PDU of absurd length")
        return kind, head + self._read(length)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed by the peer")
            data += piece
        return data


def _request(called: str, calling: str, proposed: Sequence[Proposed]) -> A_ASSOCIATE:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    contexts = []
    for n, what in enumerate(proposed[:CONTEXTS_MAX]):
        context = build_context(what.abstract_syntax, [*what.transfer_syntaxes])
        context.context_id = 2 * n + 1
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    longest, implementation, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    longest.maximum_length_received = MAXIMUM_PDU
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    information: list[Any] = [longest, implementation, version]
    for abstract_syntax in dict.fromkeys(p.abstract_syntax for p in proposed if p.as_scp):
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = abstract_syntax, False, True
        information.append(role)
    primitive.user_information = information
    return primitive
