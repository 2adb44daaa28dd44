"""A read token: what a store's answer gives, so that a read that presents it sees what was stored.

A store is answered before its event exists (the pack is still open), so the token names the packs: their ids are made
when they are opened and stay.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from uuid import UUID

from schemas.errors import Invalid

HEADER = "Sijil-Read-Token"
PACKS_MAX = 100
"""Packs of one token; a store into more of them gets none."""
_VERSION = "1."


def encode(pack_ids: Collection[str]) -> str:
    """The token; empty for none or too many."""
    if not 0 < len(pack_ids) <= PACKS_MAX:
        return ""
    packed = b"".join(UUID(p).bytes for p in sorted(pack_ids))
    return _VERSION + base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode(token: str) -> tuple[str, ...]:
    """The ids of its packs. Raises Invalid(`read-token`)."""
    try:
        text = token.removeprefix(_VERSION)
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if text == token or not packed or len(packed) % 16 or len(packed) > 16 * PACKS_MAX:
            raise ValueError("form")
    except (ValueError, binascii.Error) as e:
        raise Invalid("read-token", "this is no read token") from e
    return tuple(str(UUID(bytes=packed[n : n + 16])) for n in range(0, len(packed), 16))
