"""Command sets of DIMSE (PS3.7 §6.3, Annex E) as far as storing and reporting need them: Implicit VR Little Endian.

pynetdicom builds a pydicom dataset for each, which costs more than everything else of a small instance.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schemas.errors import Invalid

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
N_EVENT_REPORT_RQ = 0x0100
C_ECHO_RQ = 0x0030
VERIFICATION = "1.2.840.10008.1.1"
C_ECHO_RQ = 0x0030
NO_DATA_SET = 0x0101
DATA_SET = 0x0001
FRAGMENT_HEAD = 6
"""Bytes of a PDU's length that are not the fragment's own: length, context and control of its one value."""

_AFFECTED_SOP_CLASS = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE = 0x1000
_EVENT_TYPE = 0x1002
_MOVE_ORIGINATOR_AE = 0x1030
_MOVE_ORIGINATOR_MESSAGE = 0x1031
_COMMENT_LENGTH_MAX = 64

_head = struct.Struct("<HHI")
_us = struct.Struct("<H")


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 §9.3.1.1). UIDs as they came, without padding, unchecked; empty where missing."""

    message_id: int
    sop_class: str
    sop_uid: str
    has_data_set: bool


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What a C-STORE-RSP says."""

    status: int
    comment: str = ""
    """Error Comment; no value of the dataset."""


def elements(command: bytes) -> dict[int, bytes]:
    """Values of group 0000 by element number. Raises Invalid(`dimse-command`)."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(command):
        if len(command) - at < _head.size:
            raise Invalid("dimse-command")
        group, element, length = _head.unpack_from(command, at)
        at += _head.size + length
        if group != 0 or at > len(command):
            raise Invalid("dimse-command")
        found[element] = command[at - length : at]
    return found


def status_of(found: dict[int, bytes]) -> int:
    """The status of a response. Raises Invalid."""
    return _number(found, _STATUS)


def answers(found: dict[int, bytes]) -> int:
    """Which message a response responds to. Raises Invalid."""
    return _number(found, _MESSAGE_ID_RESPONDED_TO)


def command_field(found: dict[int, bytes]) -> int:
    """Which command it is. Raises Invalid."""
    return _number(found, _COMMAND_FIELD)


def store_request(found: dict[int, bytes]) -> StoreRequest:
    """The C-STORE-RQ of these elements. Raises Invalid."""
    return StoreRequest(
        message_id=_number(found, _MESSAGE_ID),
        sop_class=_uid(found, _AFFECTED_SOP_CLASS),
        sop_uid=_uid(found, _AFFECTED_SOP_INSTANCE),
        has_data_set=_number(found, _DATA_SET_TYPE) != NO_DATA_SET,
    )


def store_response(request: StoreRequest, told: StoreStatus) -> bytes:
    """The command set of the C-STORE-RSP (PS3.7 §9.3.1.2)."""
    return _command_set(
        (
            _element(_AFFECTED_SOP_CLASS, _padded(request.sop_class, b"\0")),
            _element(_COMMAND_FIELD, _us.pack(C_STORE_RSP)),
            _element(_MESSAGE_ID_RESPONDED_TO, _us.pack(request.message_id)),
            _element(_DATA_SET_TYPE, _us.pack(NO_DATA_SET)),
            _element(_STATUS, _us.pack(told.status)),
            _element(_ERROR_COMMENT, _padded(told.comment[:_COMMENT_LENGTH_MAX], b" ")) if told.comment else b"",
            _element(_AFFECTED_SOP_INSTANCE, _padded(request.sop_uid, b"\0")),
        )
    )


@dataclass(frozen=True, slots=True)
class Originator:
    """Whose C-MOVE a C-STORE belongs to (PS3.7 §9.1.1.1.8)."""

    ae_title: str
    message_id: int


def store_command(message_id: int, sop_class: str, sop_uid: str, originator: Originator | None = None) -> bytes:
    """The command set of a C-STORE-RQ of medium priority (PS3.7 §9.3.1.1)."""
    moved = b""
    if originator is not None:
        moved = _element(_MOVE_ORIGINATOR_AE, _padded(originator.ae_title, b" "))
        moved += _element(_MOVE_ORIGINATOR_MESSAGE, _us.pack(originator.message_id))
    return _command_set(
        (
            _element(_AFFECTED_SOP_CLASS, _padded(sop_class, b"\0")),
            _element(_COMMAND_FIELD, _us.pack(C_STORE_RQ)),
            _element(_MESSAGE_ID, _us.pack(message_id)),
            _element(_PRIORITY, _us.pack(0)),
            _element(_DATA_SET_TYPE, _us.pack(DATA_SET)),
            _element(_AFFECTED_SOP_INSTANCE, _padded(sop_uid, b"\0")),
            moved,
        )
    )


def echo_command(message_id: int) -> bytes:
    """The command set of a C-ECHO-RQ (PS3.7 §9.3.5.1)."""
    return _command_set(
        (
            _element(_AFFECTED_SOP_CLASS, _padded(VERIFICATION, b"\0")),
            _element(_COMMAND_FIELD, _us.pack(C_ECHO_RQ)),
            _element(_MESSAGE_ID, _us.pack(message_id)),
            _element(_DATA_SET_TYPE, _us.pack(NO_DATA_SET)),
        )
    )


def event_report_command(message_id: int, sop_class: str, sop_uid: str, event_type: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RQ with information (PS3.7 §10.3.1.1)."""
    return _command_set(
        (
            _element(_AFFECTED_SOP_CLASS, _padded(sop_class, b"\0")),
            _element(_COMMAND_FIELD, _us.pack(N_EVENT_REPORT_RQ)),
            _element(_MESSAGE_ID, _us.pack(message_id)),
            _element(_DATA_SET_TYPE, _us.pack(DATA_SET)),
            _element(_AFFECTED_SOP_INSTANCE, _padded(sop_uid, b"\0")),
            _element(_EVENT_TYPE, _us.pack(event_type)),
        )
    )


def message_pdus(
    context_id: int, command: bytes, data_set: Iterable[bytes | memoryview] | None, maximum: int
) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """(head, fragment) of each P-DATA-TF of a message; together they are its bytes (PS3.8 §9.3.5, Annex E).

    `maximum`: longest PDU the peer takes, 0 for any. The data set is taken piece by piece, one ahead. Every fragment
    but the last is as long as it may be, and of even length whatever the pieces are (PS3.8 §E.1 wants that).
    """
    size = (maximum or DEFAULT_PDU) - FRAGMENT_HEAD & ~1
    pieces = [command[i : i + size] for i in range(0, len(command), size)]
    for n, part in enumerate(pieces):
        yield _pdv(context_id, len(part), 0x03 if n + 1 == len(pieces) else 0x01), part
    if data_set is None:
        return
    held = memoryview(b"")
    for piece in data_set:
        view = memoryview(piece)
        if held and len(held) < size:
            missing = size - len(held)
            held, view = memoryview(b"".join((held, view[:missing]))), view[missing:]
        while view:
            if held:
                yield _pdv(context_id, len(held), 0x00), held
            held, view = view[:size], view[size:]
    yield _pdv(context_id, len(held), 0x02), held


DEFAULT_PDU = 128 * 1024
"""Length of our PDUs for a peer that takes any."""


def _pdv(context_id: int, length: int, control: int) -> bytes:
    return struct.pack(">BBIIBB", 0x04, 0, length + 6, length + 2, context_id, control)


def command_pdu(context_id: int, command: bytes) -> bytes:
    """A whole command set in one P-DATA-TF (PS3.8 §9.3.5, Annex E: command, last fragment)."""
    return struct.pack(">BBIIBB", 0x04, 0, len(command) + 6, len(command) + 2, context_id, 0x03) + command


def _command_set(elements_: Iterable[bytes]) -> bytes:
    body = b"".join(elements_)
    return _element(0x0000, struct.pack("<I", len(body))) + body


def _element(element: int, value: bytes) -> bytes:
    return _head.pack(0, element, len(value)) + value


def _number(found: dict[int, bytes], element: int) -> int:
    value = found.get(element, b"")
    if len(value) != 2:
        raise Invalid("dimse-command")
    return int(_us.unpack(value)[0])


def _uid(found: dict[int, bytes], element: int) -> str:
    return found.get(element, b"").decode("latin-1").strip(" \0")


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("latin-1", "replace")
    return value + pad * (len(value) % 2)
