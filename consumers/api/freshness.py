"""How fresh an answer is: events that the projection of its topic has not applied yet, and for how long.

Compared in the background every second, not per request: `projection_positions` against the ends of the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import Gauge

from consumers.api import queries
from consumers.api.views import Views
from infra import clock, telemetry
from infra.ports import Log
from schemas.errors import Transient

log = telemetry.logger(__name__)

POLL_S = 1.0
SAMPLES_MAX = 600
PROJECTION = "views"
"""Name of the read models' projection in `projection_positions`."""
CORRECTIONS = "sijil.study.corrections"
TOPICS = tuple(
    f"sijil.{t}"
    for t in ("study.arrivals", "study.lifecycle", "study.corrections", "reports", "accesses", "patients", "archive")
)

EVENTS_BEHIND = Gauge("sijil_projection_lag_events", "Events the read models have not applied yet", ["topic"])
SECONDS_BEHIND = Gauge("sijil_projection_lag_seconds", "How long they have been behind", ["topic"])


@dataclass(frozen=True)
class Lag:
    """How far a projection is behind a topic."""

    events: int
    seconds: float


Offsets = Mapping[int, int]
"""Partition → next offset."""


class History:
    """The ends a topic had, and when. Pure: it is told the time."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Offsets]] = deque()

    def lag(self, ends: Offsets, applied: Offsets, now: float) -> Lag:
        """The lag of a projection that has applied everything before `applied`. `seconds` is the age of the latest
        sample it has wholly applied; of the oldest one kept while it has applied none.
        """
        self._samples.append((now, ends))
        while len(self._samples) > 1 and _covered(self._samples[1][1], applied):
            self._samples.popleft()
        if len(self._samples) > SAMPLES_MAX:
            # Behind for long: the recent past loses half of its samples, the oldest one stays.
            oldest, *rest = self._samples
            self._samples = deque([oldest, *rest[::2]])
        events = sum(max(0, end - applied.get(p, 0)) for p, end in ends.items())
        return Lag(events, now - self._samples[0][0] if events else 0.0)


def _covered(ends: Offsets, applied: Offsets) -> bool:
    return all(applied.get(p, 0) >= end for p, end in ends.items())


class Freshness:
    """What the background knows."""

    def __init__(self, kafka: Log, views: Views) -> None:
        self._kafka, self._views = kafka, views
        self._lags: dict[str, Lag] = {}
        self._histories = {t: History() for t in TOPICS}
        self._known_at = 0.0
        self._applied: dict[str, Offsets] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None

    def header(self, topic: str) -> str:
        """`events=12; seconds=0.4`, or `unknown` while the log cannot be asked."""
        lag = self._lags.get(topic)
        if lag is None or clock.monotonic() - self._known_at > 10 * POLL_S:
            return "unknown"
        return f"events={lag.events}; seconds={lag.seconds:.1f}"

    def watch(self, topic: str, changed: Callable[[], None]) -> None:
        """Call `changed` soon after records of a topic were applied."""
        self._watchers.setdefault(topic, []).append(changed)

    def events(self) -> int:
        """Events behind, over all topics."""
        return sum(lag.events for lag in self._lags.values())

    async def start(self) -> None:
        """Look every second from now on."""
        self._task = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _poll(self) -> None:
        while True:
            try:
                await self.look()
            except Transient as error:
                log.debug("freshness unknown", reason=type(error).__name__)
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Compare once. The ends are asked first, so that nothing seems fresher than it is."""
        ends = await asyncio.to_thread(lambda: {t: self._kafka.ends(t) for t in TOPICS})
        rows = await self._views.tables.select(queries.positions(PROJECTION))
        now = clock.monotonic()
        for topic in TOPICS:
            applied = {r["partition"]: r["next_offset"] for r in rows if r["topic"] == topic}
            if self._applied.get(topic, applied) != applied:
                for changed in self._watchers.get(topic, ()):
                    changed()
            self._applied[topic] = applied
            lag = self._lags[topic] = self._histories[topic].lag(ends[topic], applied, now)
            EVENTS_BEHIND.labels(topic).set(lag.events)
            SECONDS_BEHIND.labels(topic).set(lag.seconds)
        self._known_at = now
