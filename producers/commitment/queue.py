"""Storage commitments on the gateway's disk: one file each, there before the request is answered, gone when reported.

A file is written beside its place, synced, renamed, and its folder synced. A file that cannot be read is left where it
is and logged: a person has to look at it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from infra import telemetry
from producers.commitment.transaction import Transaction
from producers.recovery import sync_folder

log = telemetry.logger(__name__)

_decoder = msgspec.json.Decoder(Transaction)
_SUFFIX = ".json"


def key_of(ae_title: str, transaction_uid: str) -> str:
    """Name of a transaction: requesters choose their UIDs without knowing of each other."""
    return hashlib.sha256(f"{ae_title}\x1f{transaction_uid}".encode()).hexdigest()[:40]


class CommitmentQueue:
    """Not thread-safe: its worker uses it under a lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.new"):
            path.unlink()

    def load(self) -> Iterator[tuple[str, Transaction]]:
        """(key, transaction) of each, oldest first."""
        found = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            try:
                found.append((path.stem, _decoder.decode(path.read_bytes())))
            except msgspec.DecodeError:
                log.error("a storage commitment on disk cannot be read", file=path.name)
        yield from sorted(found, key=lambda f: f[1].requested)

    def put(self, key: str, transaction: Transaction) -> None:
        """Durable on return. Raises OSError."""
        path = self._folder / f"{key}{_SUFFIX}"
        temporary = path.with_suffix(".new")
        try:
            with open(temporary, "wb") as f:
                f.write(msgspec.json.encode(transaction))
                f.flush()
                os.fsync(f.fileno())
            os.rename(temporary, path)
            sync_folder(self._folder)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise

    def remove(self, key: str) -> None:
        """Answered. A crash may bring it back: reported twice is harmless, not reported is not."""
        (self._folder / f"{key}{_SUFFIX}").unlink(missing_ok=True)
