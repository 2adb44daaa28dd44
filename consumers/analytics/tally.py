"""Studies, bytes and reports per site and day, counted from the log alone. Pure.

Every event may come twice and some are repeated with other ids; what is counted is what they are about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.events import Event, PackStored, ReportIssued

TOPICS = ("sijil.study.arrivals", "sijil.reports")


@dataclass(frozen=True)
class Line:
    """One site's day (YYYY-MM-DD, UTC; of the arrival or the issue)."""

    site: str
    day: str
    studies: int
    instances: int
    bytes: int
    reports: int


@dataclass
class _Day:
    studies: set[str] = field(default_factory=set)
    packs: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Pack → (instances, bytes)."""
    reports: set[tuple[str, int]] = field(default_factory=set)


class Tally:
    """Counts what it is given, in any order."""

    def __init__(self) -> None:
        self._days: defaultdict[tuple[str, str], _Day] = defaultdict(_Day)

    def add(self, event: Event) -> None:
        """Count an event; of other types than these it takes no notice."""
        match event:
            case PackStored():
                day = self._days[event.site, event.sealed[:10]]
                day.studies.add(event.study_uid)
                day.packs[event.pack_id] = event.instances, event.pack_size
            case ReportIssued():
                self._days[event.site, event.issued[:10]].reports.add((event.report_id, event.version))

    def lines(self) -> Iterator[Line]:
        """Site by site, day by day."""
        for (site, day), found in sorted(self._days.items()):
            instances, size = (sum(n) for n in zip(*found.packs.values(), strict=True)) if found.packs else (0, 0)
            yield Line(site, day, len(found.studies), instances, size, len(found.reports))
