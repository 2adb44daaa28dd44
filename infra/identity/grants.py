"""What the embedded issuer has granted: log-ins that go on, and what was used up.

In `<home>/secrets/issuer-grants.json` (mode 0600), so that people stay logged in when the archive is started again, and
a refresh token that came twice is known also then. The file holds SHA-256 of tokens, never one itself. Authorization
codes live for a minute, in memory. One process writes it.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TypeVar

import msgspec

from infra import clock, telemetry
from infra.stack.credentials import write_private

log = telemetry.logger(__name__)

GRANTS_MAX = 10_000
ENDED_KEPT_S = 24 * 3600.0
"""Longer than any token of a grant is good."""
V = TypeVar("V")


class Grant(msgspec.Struct):
    """A log-in and what it may still be used for."""

    id: str
    username: str
    password: str
    """Digest of the password it began with: another one ends it."""
    client_id: str
    nonce: str
    until: float
    """Seconds since the epoch."""
    refresh: str = ""
    """SHA-256 of the token that is good now."""


class _Kept(msgspec.Struct):
    grants: list[Grant]
    used: dict[str, str]
    ended: dict[str, float]


class Grants:
    """Those of one issuer; without a file, of one process."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._grants: OrderedDict[str, Grant] = OrderedDict()
        self._by_refresh: dict[str, str] = {}
        self._used: OrderedDict[str, str] = OrderedDict()
        """SHA-256 of codes and refresh tokens that were used → their grant."""
        self._ended: OrderedDict[str, float] = OrderedDict()
        if file is not None and file.exists():
            self._read(file)

    def put(self, grant: Grant) -> None:
        """It goes on, under its refresh token of now."""
        if (known := self._grants.get(grant.id)) is not None:
            self._by_refresh.pop(known.refresh, None)
        keep(self._grants, grant.id, grant)
        self._by_refresh[grant.refresh] = grant.id
        self._write()

    def of_refresh(self, digest: str) -> Grant | None:
        """The one that a refresh token is good for, while it is."""
        grant = self._grants.get(self._by_refresh.get(digest, ""))
        return grant if grant is not None and grant.until > clock.now().timestamp() else None

    def use(self, digest: str, grant_id: str) -> None:
        """A code or a token was used; it is good for nothing else."""
        keep(self._used, digest, grant_id)

    def used(self, digest: str) -> str:
        """The grant of what was used before; empty for what was not."""
        return self._used.get(digest, "")

    def end(self, grant_id: str) -> None:
        """Nothing that came of it is good any more."""
        if (grant := self._grants.pop(grant_id, None)) is not None:
            self._by_refresh.pop(grant.refresh, None)
        keep(self._ended, grant_id, clock.now().timestamp())
        self._write()

    def ended(self, grant_id: str) -> bool:
        """Whether it was ended before its time."""
        return grant_id in self._ended

    def _read(self, file: Path) -> None:
        try:
            kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            log.warning("what the embedded issuer had granted cannot be read: people log in again")
            return
        now = clock.now().timestamp()
        self._grants.update((g.id, g) for g in kept.grants if g.until > now)
        self._by_refresh.update((g.refresh, g.id) for g in self._grants.values())
        self._used.update((digest, id) for digest, id in kept.used.items() if id in self._grants)
        self._ended.update(kept.ended)

    def _write(self) -> None:
        self._forget()
        if self._file is not None:
            kept = _Kept([*self._grants.values()], dict(self._used), dict(self._ended))
            write_private(self._file, msgspec.json.encode(kept).decode())

    def _forget(self) -> None:
        """What is over by its time, and what was used of it: each write is of what still matters."""
        now = clock.now().timestamp()
        over = {id: g.refresh for id, g in self._grants.items() if g.until <= now}
        for id, refresh in over.items():
            del self._grants[id]
            self._by_refresh.pop(refresh, None)
        for digest in [d for d, id in self._used.items() if id in over]:
            del self._used[digest]
        while self._ended and next(iter(self._ended.values())) < now - ENDED_KEPT_S:
            self._ended.popitem(last=False)


def keep(where: OrderedDict[str, V], key: str, value: V) -> None:
    """Put; the oldest goes above GRANTS_MAX."""
    where[key] = value
    where.move_to_end(key)
    if len(where) > GRANTS_MAX:
        where.popitem(last=False)
