"""The PIN of an order's newest slip, as its hash is kept among the documents."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from infra.ports import Objects
from schemas.slips import decode_slip, slip_key, slips_of

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class SlipPins:
    """Reads them (`consumers.api.invitations.PinOf`)."""

    def __init__(self, objects: Objects, bucket: str) -> None:
        self._objects, self._bucket = objects, bucket

    async def __call__(self, order_id: str) -> str:
        """The hash; "" where there is no slip. Raises Transient."""
        return await asyncio.to_thread(self._read, order_id)

    def _read(self, order_id: str) -> str:
        if not _UUID.match(order_id):
            return ""
        names = (
            k.rpartition("/")[2].removesuffix(".json") for k in self._objects.list(self._bucket, slips_of(order_id))
        )
        numbers = [int(n) for n in names if n.isascii() and n.isdigit()]
        if not numbers:
            return ""
        return decode_slip(self._objects.get(self._bucket, slip_key(order_id, max(numbers)))).pin
