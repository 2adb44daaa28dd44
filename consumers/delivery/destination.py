"""What a destination is: somebody who must get what happens, and how one delivery to them can end.

A room adds destinations under the entry point group `sijil.destinations`: a function `make(around) -> destinations`.
Each has its own place in the log, its own outbox rows and its own circuit, so one that is down holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from consumers.delivery.entry import Entry, Outcome
from consumers.delivery.press import Print
from infra.ports import Objects, Tables
from infra.settings import Settings
from schemas.events import Event


class Destination(Protocol):
    """Somebody who must get what happens."""

    @property
    def name(self) -> str:
        """A short code, unique and kept for ever: rows and events carry it."""

    @property
    def topics(self) -> Sequence[str]:
        """Full names of the topics that it is told of."""

    def subjects(self, event: Event) -> Sequence[str]:
        """Of what it must be told because of `event`; none: nothing. Pure. A subject's deliveries keep their order."""

    async def deliver(self, entry: Entry) -> Outcome:
        """Hand it over, once or again: the same `entry.id` must change nothing the second time.

        The read models have passed the entry's event. Called for several subjects at once, never twice for the same.
        Raises Away when the destination is; any other Transient is a fault of this side, and not counted against it.
        """

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True)
class Around:
    """What destinations are made with."""

    settings: Settings
    tables: Callable[[], Tables]
    """The read models that answer now. Raises Transient before the first connection."""
    state: Callable[[], Tables]
    """`sijil_state`. Raises Transient likewise."""
    objects: Objects
    printed: Print
    """Makes the PDF of a report; of the same report once for all destinations."""


Make = Callable[[Around], Sequence[Destination]]
