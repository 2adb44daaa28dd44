"""Command sets of DIMSE (PS3.7 §6.3, Annex E) as far as C-STORE needs them: Implicit VR Little Endian.

pynetdicom builds a pydicom dataset for each, which costs more than everything else of a small instance.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from schemas.errors import Invalid

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
NO_DATA_SET = 0x0101

_AFFECTED_SOP_CLASS = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE = 0x1000
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
    body = b"".join(
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
    return _element(0x0000, struct.pack("<I", len(body))) + body


def command_pdu(context_id: int, command: bytes) -> bytes:
    """A whole command set in one P-DATA-TF (PS3.8 §9.3.5, Annex E: command, last fragment)."""
    return struct.pack(">BBIIBB", 0x04, 0, len(command) + 6, len(command) + 2, context_id, 0x03) + command


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
