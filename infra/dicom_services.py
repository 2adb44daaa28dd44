"""What the rooms give to the DICOM door, and what the door tells them: values and protocols, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from infra.dicom_command import StoreRequest, StoreStatus
from schemas.caller import Caller

Negotiate = Callable[[str, Sequence[str]], str | None]
"""(abstract syntax, transfer syntaxes offered) → the one accepted, or None."""


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of an association."""

    calling_ae: str
    called_ae: str
    address: str
    certificate: str = ""
    """SHA-256 of the certificate it has proved itself with, hex; empty without TLS."""
    caller: Caller | None = None
    """For whom it speaks, by the AE table; None: it may not call."""


@dataclass(frozen=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""

    result: int
    source: int
    diagnostic: int


CALLING_AE_UNKNOWN = Rejection(1, 1, 3)
CALLED_AE_UNKNOWN = Rejection(1, 1, 7)
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2)

Identify = Callable[[Peer], Caller | None]
"""For whom a peer speaks. Asked once for each association."""
Admit = Callable[[Peer], Rejection | None]


class StoreSink(Protocol):
    """Takes the dataset of one C-STORE. Called by one thread."""

    def into(self, length: int) -> memoryview:
        """Memory for the next bytes, at most `length` and at least one."""

    def took(self, length: int) -> None:
        """So many bytes have been put there."""

    def finish(self) -> StoreStatus:
        """All bytes are there; returns when the instance is durable, or refused."""

    def discard(self) -> None:
        """The association ended before all bytes were there."""


class StoreSession(Protocol):
    """The instances of one association."""

    def begin(self, request: StoreRequest, transfer_syntax: str) -> StoreSink:
        """An instance begins."""

    def end(self) -> None:
        """The association has ended."""


StoreService = Callable[[Peer], StoreSession]


@dataclass(frozen=True)
class Services:
    """What the rooms have registered."""

    negotiate: Negotiate
    admit: Admit
    identify: Identify
    store: StoreService | None
    requests: Mapping[type[Any], Callable[[Any], None]] = field(default_factory=dict)
    """Request primitive of pynetdicom → handler (`infra.dicom_exchange.Handler`)."""
    both_roles: Callable[[str], bool] = lambda abstract_syntax: False
    """Whether a peer may take the SCP role for a context that it proposes (PS3.7 §D.3.3.4)."""
