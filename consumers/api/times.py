"""How long things take: the steps of a study's way, what lies between them, and their percentiles. Pure.

Times are moments of the log, but for arrival of the first pack and the end of what the devices do, which are in the
study's row. A step that was taken more than once counts from its first time, but a completion counts from its last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

STEPS: Final = ("ordered", "arrived", "complete", "opened", "preliminary", "final", "delivered", "read")
INTERVALS: Final[Mapping[str, tuple[str, str]]] = {
    "ordered-arrived": ("ordered", "arrived"),
    "arrived-complete": ("arrived", "complete"),
    "complete-opened": ("complete", "opened"),
    "complete-preliminary": ("complete", "preliminary"),
    "complete-final": ("complete", "final"),
    "arrived-final": ("arrived", "final"),
    "ordered-final": ("ordered", "final"),
    "final-delivered": ("final", "delivered"),
    "final-read": ("final", "read"),
}
"""Name → from where to where."""
AFTER_FINAL: Final = ("delivered", "read")
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
PERCENTILES: Final = (50, 90, 95)
UNKNOWN: Final = ""
"""Group of studies of which it is not known."""


@dataclass(frozen=True)
class Way:
    """A study's way so far."""

    study_uid: str
    steps: Mapping[str, datetime]
    modalities: tuple[str, ...] = ()
    priority: str = ""

    def seconds(self, interval: str) -> float | None:
        """How long it took; None where a step is missing, or came the other way round."""
        first, last = (self.steps.get(name) for name in INTERVALS[interval])
        found = (last - first).total_seconds() if first is not None and last is not None else -1.0
        return found if found >= 0 else None


def way(study_uid: str, study: Mapping[str, Any], milestones: Iterable[Mapping[str, Any]]) -> Way:
    """Of a row of `studies` and its rows of `milestones`."""
    taken: dict[str, list[tuple[datetime, str]]] = {}
    for row in milestones:
        taken.setdefault(row["step"], []).append((row["at"], row["kind"] or ""))
    steps: dict[str, datetime] = {name: min(taken[name])[0] for name in STEPS if name in taken}
    priority = max(taken.get("ordered", [(_NEVER, "")]))[1]
    for name in AFTER_FINAL:
        # What was read of a preliminary report is not what this asks for
        if "final" in steps and name in steps:
            later = [at for at, _ in taken[name] if at >= steps["final"]]
            steps = {n: at for n, at in steps.items() if n != name} | ({name: min(later)} if later else {})
    if study.get("first_arrival") is not None:
        steps["arrived"] = study["first_arrival"]
    if study.get("completed_time"):
        steps["complete"] = datetime.fromisoformat(study["completed_time"])
    return Way(study_uid, steps, tuple(sorted(study.get("modalities") or ())), priority)


Group = Callable[[str, Way], str]
"""(site, way) → group."""


def grouping(by: str, zone: ZoneInfo) -> Group | None:
    """What ways are grouped by; None for what nobody can be asked."""
    return {
        "site": lambda site, way: site,
        "modality": lambda site, way: "\\".join(way.modalities) or UNKNOWN,
        "priority": lambda site, way: way.priority or UNKNOWN,
        "hour": lambda site, way: _hour(way, zone),
    }.get(by)


def _hour(way: Way, zone: ZoneInfo) -> str:
    arrived = way.steps.get("arrived")
    return f"{arrived.astimezone(zone):%H}" if arrived is not None else UNKNOWN


def summary(ways: Iterable[tuple[str, Way]], group: Group) -> list[dict[str, Any]]:
    """Of each group how many studies, how many have taken each step, and each interval's percentiles in seconds."""
    groups: dict[str, list[Way]] = {}
    for site, found in ways:
        groups.setdefault(group(site, found), []).append(found)
    return [
        {
            "group": name,
            "studies": len(members),
            "steps": {s: n for s in STEPS if (n := sum(s in way.steps for way in members))},
            "intervals": {i: told for i in INTERVALS if (told := _told(members, i))},
        }
        for name, members in sorted(groups.items())
    ]


def _told(members: Sequence[Way], interval: str) -> dict[str, float | int]:
    seconds = sorted(s for way in members if (s := way.seconds(interval)) is not None)
    return {"n": len(seconds)} | {f"p{p}": percentile(seconds, p) for p in PERCENTILES} if seconds else {}


def percentile(ascending: Sequence[float], percent: int) -> float:
    """Nearest rank: the smallest of the values that at least `percent` of them do not exceed."""
    return round(ascending[max(0, -(-len(ascending) * percent // 100) - 1)], 3)
