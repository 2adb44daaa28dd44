"""What is owed to one destination, in memory: whose turn it is, and whether it is of use to call at all. Pure.

Subjects are served fairly, each one's deliveries in the order of the log, one at a time. Times are seconds of any
monotonic clock, given by the caller; so is the randomness.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from consumers.delivery.entry import Entry

QUEUED, RETRYING, WAITING, REFUSED = "queued", "retrying", "waiting", "refused"

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 300.0
WAIT_FIRST_S: Final = 0.2
"""A study is often a moment later there than its report."""
WAIT_MOST_S: Final = 600.0
CIRCUIT_FAILURES: Final = 5
CIRCUIT_FIRST_S: Final = 1.0
CIRCUIT_MOST_S: Final = 60.0

Random = Callable[[], float]
"""A number of [0, 1)."""


def back_off(first_s: float, most_s: float, tries: int, random: Random) -> float:
    """Seconds until the next try after `tries` (from 1): doubling, bounded, half of it by chance, so that those who
    failed together do not come back together.
    """
    span = min(most_s, first_s * 2.0 ** min(tries - 1, 32))
    return span * (0.5 + 0.5 * random())


@dataclass
class Circuit:
    """Whether a destination is called: after some failures in a row only one call at a time finds out if it is back."""

    failures: int = 0
    """In a row."""
    closed_at: float = 0.0
    """While it is open: when the next call may find out."""

    @property
    def open(self) -> bool:
        """Whether calls are known to be useless."""
        return self.failures >= CIRCUIT_FAILURES

    def room(self, now: float, running: int, most: int) -> int:
        """How many more calls may begin."""
        if not self.open:
            return max(0, most - running)
        return 1 if not running and now >= self.closed_at else 0

    def succeeded(self) -> bool:
        """A call was answered. Whether that closed it."""
        was, self.failures = self.open, 0
        return was

    def failed(self, now: float, random: Random) -> None:
        """A call was not."""
        self.failures += 1
        if self.open:
            tries = self.failures - CIRCUIT_FAILURES + 1
            self.closed_at = now + back_off(CIRCUIT_FIRST_S, CIRCUIT_MOST_S, tries, random)


@dataclass
class Owed:
    """An entry and how it stands."""

    entry: Entry
    state: str = QUEUED
    attempts: int = 0
    """Calls that the destination did not take, and those that it refused."""
    waits: int = 0
    """Tries at which something was not known yet, since this process began."""
    due: float = 0.0
    reason: str = ""


@dataclass
class _Lane:
    """The deliveries of one subject."""

    owed: list[tuple[tuple[object, ...], Owed]] = field(default_factory=list)
    """A heap by the order of the entries."""
    running: Owed | None = None


class Queue:
    """One destination's deliveries."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._lanes: dict[str, _Lane] = {}
        self._due: list[tuple[float, int, str]] = []
        """A heap of (when, tie, subject): when a subject's first entry may be tried. Stale ones are passed over."""
        self._count = 0
        self._known: dict[str, Owed] = {}
        self.circuit = Circuit()
        self.running = 0

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Owed]:
        return iter(self._known.values())

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def add(self, owed: Owed) -> None:
        """One more; one that is there already changes nothing. A refused one is kept aside."""
        if owed.entry.id in self._known:
            return
        self._known[owed.entry.id] = owed
        if owed.state != REFUSED:
            self._put(owed)

    def _put(self, owed: Owed) -> None:
        subject = owed.entry.subject
        lane = self._lanes.setdefault(subject, _Lane())
        if lane.owed and lane.owed[0][1].state == WAITING:  # what is new may be what it waits for
            lane.owed[0][1].due = 0.0
        heapq.heappush(lane.owed, ((*owed.entry.order,), owed))
        self._schedule(subject, lane)

    def _schedule(self, subject: str, lane: _Lane) -> None:
        if lane.owed and lane.running is None:
            self._count += 1
            heapq.heappush(self._due, (lane.owed[0][1].due, self._count, subject))

    def take(self, now: float, most: int) -> list[Owed]:
        """What to call for now: at most `most` calls under way at once, one for each subject."""
        taken: list[Owed] = []
        room = self.circuit.room(now, self.running, most)
        while len(taken) < room and self._due and self._due[0][0] <= now:
            due, _, subject = heapq.heappop(self._due)
            lane = self._lanes.get(subject)
            if lane is None or lane.running is not None or not lane.owed or lane.owed[0][1].due > due:
                continue
            lane.running = heapq.heappop(lane.owed)[1]
            self.running += 1
            taken.append(lane.running)
        return taken

    def next_due(self, now: float) -> float:
        """Seconds until `take` may have something; at most a minute."""
        if not self._due:
            return 60.0
        at = max(self._due[0][0], self.circuit.closed_at if self.circuit.open else 0.0)
        return min(60.0, max(0.0, at - now))

    def _ended(self, owed: Owed) -> _Lane:
        lane = self._lanes[owed.entry.subject]
        lane.running = None
        self.running -= 1
        return lane

    def delivered(self, owed: Owed) -> None:
        """It is done."""
        lane = self._ended(owed)
        del self._known[owed.entry.id]
        self._answered()
        self._next(owed.entry.subject, lane)

    def refused(self, owed: Owed) -> None:
        """It is set aside; what follows it goes on."""
        lane = self._ended(owed)
        owed.state = REFUSED
        self._answered()
        self._next(owed.entry.subject, lane)

    def waits(self, owed: Owed, reason: str, now: float) -> bool:
        """It is asked again later, and what follows it in its subject waits. Whether it waits for something new."""
        self._ended(owed)
        changed = (owed.state, owed.reason) != (WAITING, reason)
        owed.waits = 1 if changed else owed.waits + 1
        owed.state, owed.reason = WAITING, reason
        owed.due = now + back_off(WAIT_FIRST_S, WAIT_MOST_S, owed.waits, self._random)
        self._put(owed)
        return changed

    def failed(self, owed: Owed, reason: str, now: float, least_s: float = 0.0) -> float:
        """The destination did not take it: tried again after so many seconds, which are returned."""
        self._ended(owed)
        owed.attempts += 1
        owed.state, owed.reason = RETRYING, reason
        self.circuit.failed(now, self._random)
        after = max(least_s, back_off(RETRY_FIRST_S, RETRY_MOST_S, owed.attempts, self._random))
        owed.due = now + after
        self._put(owed)
        return after

    def postponed(self, owed: Owed, now: float, after_s: float) -> None:
        """It was not tried, for a fault of our own: again after so long, and nothing is counted."""
        self._ended(owed)
        owed.due = now + after_s
        self._put(owed)

    def _answered(self) -> None:
        if self.circuit.succeeded():
            self.wake(o for o in self._known.values() if o.state == RETRYING)

    def _next(self, subject: str, lane: _Lane) -> None:
        if lane.owed:
            self._schedule(subject, lane)
        else:
            del self._lanes[subject]

    def wake(self, which: Iterable[Owed]) -> int:
        """These are tried now, whatever was planned; how many. Those that were refused are in their order again, and an
        open circuit lets the first of them find out at once.
        """
        self.circuit.closed_at = 0.0
        count = 0
        for owed in list(which):
            lane = self._lanes.get(owed.entry.subject)
            if lane is not None and lane.running is owed:
                continue
            count += 1
            owed.due, owed.waits = 0.0, 0
            if owed.state == REFUSED:
                owed.state = QUEUED
                self._put(owed)
            elif lane is not None:
                self._schedule(owed.entry.subject, lane)
        return count
