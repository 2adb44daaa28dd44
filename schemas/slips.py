"""The slip that a patient takes along: what is kept of it, `slips/<order id>/<number>.json` among the documents. Pure.

Of its PIN only a slow salted hash is kept (`schemas.pin`), and not in the order's document, which others may read. The
slip with the highest number holds; those before it open nothing any more.
"""

from __future__ import annotations

import msgspec

from schemas.errors import Invalid
from schemas.events import Actor, Id, Time


class Slip(msgspec.Struct, frozen=True, kw_only=True):
    """A slip."""

    order_id: Id
    number: int
    pin: str
    """`schemas.pin.hashed`."""
    issued: Time
    issued_by: Actor


_decoder = msgspec.json.Decoder(Slip)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode_slip(slip: Slip) -> bytes:
    """The object."""
    return _encoder.encode(slip)


def decode_slip(data: bytes) -> Slip:
    """Raises Invalid(`slip-document`), which quotes nothing of it."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("slip-document", "the record of a slip is damaged") from e


def slips_of(order_id: str) -> str:
    """Prefix of their keys."""
    return f"slips/{order_id}/"


def slip_key(order_id: str, number: int) -> str:
    """Key of one."""
    return f"{slips_of(order_id)}{number}.json"
