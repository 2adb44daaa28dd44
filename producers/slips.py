"""Slips that patients take along: a new PIN each time one is printed; the one before opens nothing any more.

1. the PIN's hash is in S3 under the slip's number
2. whoever prints it is told the PIN

A crash between them leaves a slip whose PIN nobody knows; who prints again gets the next one.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from infra import clock, faults
from infra.ports import Objects
from schemas.errors import Defect, Overloaded
from schemas.pin import DIGITS, SALT_BYTES, hashed
from schemas.slips import Slip, encode_slip, slip_key, slips_of

ATTEMPTS_MAX: Final = 5
"""Of writers who print at the same moment."""


@dataclass(frozen=True)
class Printed:
    """What stands on a slip: told once, to whoever prints it, and kept nowhere."""

    number: int
    pin: str


class Slips:
    """Issues them. Blocking (a hash takes tens of milliseconds); thread-safe."""

    def __init__(self, objects: Objects, bucket: str) -> None:
        self._objects, self._bucket = objects, bucket

    def issue(self, order_id: str, actor: str) -> Printed:
        """A slip of an order that is there. Raises Transient."""
        pin = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
        digest = hashed(pin, secrets.token_bytes(SALT_BYTES))
        for _ in range(ATTEMPTS_MAX):
            keys = self._objects.list(self._bucket, slips_of(order_id))
            numbers = [int(k.rpartition("/")[2].removesuffix(".json")) for k in keys]
            number = max(numbers, default=0) + 1
            slip = Slip(
                order_id=order_id, number=number, pin=digest, issued=clock.rfc3339(clock.now()), issued_by=actor
            )
            data = encode_slip(slip)
            try:
                self._objects.put(
                    self._bucket,
                    slip_key(order_id, number),
                    data,
                    sha256=hashlib.sha256(data).hexdigest(),
                    content_type="application/json",
                )
            except Defect:  # somebody else prints one just now
                continue
            faults.point("slips.after-document")
            return Printed(number, pin)
        raise Overloaded("slips of this order are printed elsewhere just now", 1.0)
