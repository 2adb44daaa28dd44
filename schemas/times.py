"""How long things take: the steps of a study's way, what lies between them, and the buckets they are counted in. Pure.

Times are moments of the log, but for the end of what the devices do, which is in the study's row, and of deliveries. A
step that was taken more than once counts from its first time, but a completion counts from its last.

Durations are counted in buckets, so that sums of any sites and days are sums of counts. A bucket holds whole
milliseconds of which the longest is at most 2 % longer than the shortest; what it is told as (`told_s`) is therefore
never further than ERROR from what was counted, and up to 50 ms it is that itself.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

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
SUBSCRIPTIONS: Final = "subscription-"
"""Destinations that are only notified, with no report in it, are called so."""
ERROR: Final = 0.01
"""How far a percentile is from the exact one at most, as a part of it."""
LONGEST_MS: Final = 100 * 366 * 86_400_000


@dataclass(frozen=True)
class Way:
    """A study's way so far."""

    study_uid: str
    steps: Mapping[str, datetime]
    modalities: tuple[str, ...] = ()
    priority: str = ""

    def milliseconds(self, interval: str) -> int | None:
        """How long it took; None where a step is missing, or came the other way round."""
        first, last = (self.steps.get(name) for name in INTERVALS[interval])
        if first is None or last is None or last < first:
            return None
        took = last - first
        return (took.days * 86_400 + took.seconds) * 1000 + took.microseconds // 1000

    def seconds(self, interval: str) -> float | None:
        """The same in seconds."""
        took_ms = self.milliseconds(interval)
        return None if took_ms is None else took_ms / 1000


def way(
    study_uid: str,
    study: Mapping[str, Any],
    milestones: Iterable[Mapping[str, Any]],
    deliveries: Iterable[Mapping[str, Any]] = (),
) -> Way:
    """Of a row of `studies`, its rows of `milestones`, and those of `deliveries_by_report` of its signed reports."""
    taken: dict[str, list[datetime]] = {}
    orders: list[tuple[datetime, str, str]] = []
    for row in milestones:
        taken.setdefault(row["step"], []).append(row["at"])
        if row["step"] == "ordered":
            orders.append((row["at"], row["of"], row["kind"] or ""))
    if told := [datetime.fromisoformat(row["occurred"]) for row in deliveries if has_report(row["destination"])]:
        taken["delivered"] = told
    steps: dict[str, datetime] = {name: min(taken[name]) for name in STEPS if name in taken}
    for name in AFTER_FINAL:
        # What was read of a preliminary report is not what this asks for
        later = [at for at in taken.get(name, ()) if "final" in steps and at >= steps["final"]]
        steps = {n: at for n, at in steps.items() if n != name} | ({name: min(later)} if later else {})
    if study.get("first_arrival") is not None:
        steps["arrived"] = study["first_arrival"]
    if study.get("completed_time"):
        steps["complete"] = datetime.fromisoformat(study["completed_time"])
    return Way(study_uid, steps, tuple(sorted(study.get("modalities") or ())), max(orders)[2] if orders else "")


def has_report(destination: str) -> bool:
    """Whether who was told there has the report itself."""
    return not destination.startswith(SUBSCRIPTIONS)


# ------------------------------------------------------------------------------------------------ counting


def _bounds() -> Iterator[int]:
    longest = -1
    while longest < LONGEST_MS:
        longest = max(longest + 1, (longest + 1) * 102 // 100)
        yield longest


_LONGEST: Final = tuple(_bounds())
"""The longest duration of each bucket, in ms."""
BUCKET_BITS: Final = 11
_INTERVALS: Final = tuple(INTERVALS)


def bucket(took_ms: int) -> int:
    """Which one counts a duration of 0 ms and more; what is beyond LONGEST_MS counts as that."""
    return bisect_left(_LONGEST, min(took_ms, LONGEST_MS))


def told_s(number: int) -> float:
    """What a bucket stands for, in seconds: as far from its shortest as from its longest, as parts of them."""
    shortest, longest = _LONGEST[number - 1] + 1 if number else 0, _LONGEST[number]
    return longest / 1000 if shortest == longest else 2 * shortest * longest / (shortest + longest) / 1000


def codes(way: Way) -> bytes:
    """What is counted of a study: the bucket of each interval, then the steps it has taken. 16 bits each, ascending."""
    found = [n << BUCKET_BITS | bucket(ms) for n, i in enumerate(_INTERVALS) if (ms := way.milliseconds(i)) is not None]
    found += [len(_INTERVALS) + n << BUCKET_BITS for n, s in enumerate(STEPS) if s in way.steps]
    return struct.pack(f"<{len(found)}H", *found)


def meaning(code: int) -> tuple[str, int]:
    """(interval, its bucket), or (step, 0)."""
    number = code >> BUCKET_BITS
    if number < len(_INTERVALS):
        return _INTERVALS[number], code & (1 << BUCKET_BITS) - 1
    return STEPS[number - len(_INTERVALS)], 0


def cell(way: Way) -> str:
    """Modalities (joined as in PS3.5 §6.2) and priority: what studies of one site and hour are told apart by."""
    return "\\".join(way.modalities) + "\t" + way.priority


def counted(studies: Iterable[tuple[str, bytes]]) -> tuple[list[str], bytes]:
    """Of (cell, codes) of each study the cells, and how often each has which code: 32 bits each of the cell's place
    and the code (16 bits each), and of the count.
    """
    counts: dict[str, Counter[int]] = {}
    for name, data in studies:
        if data:
            counts.setdefault(name, Counter()).update(struct.unpack(f"<{len(data) // 2}H", data))
    return _packed(counts)


def added(sums: Iterable[tuple[Sequence[str], bytes]]) -> tuple[list[str], bytes]:
    """Several such (cells, counts) as one."""
    counts: dict[str, Counter[int]] = {}
    for cells, data in sums:
        for what, count in struct.iter_unpack("<2I", data):
            counts.setdefault(cells[what >> 16], Counter())[what & 0xFFFF] += count
    return _packed(counts)


def _packed(counts: Mapping[str, Mapping[int, int]]) -> tuple[list[str], bytes]:
    cells = sorted(counts)
    flat = [
        n for place, name in enumerate(cells) for c, k in sorted(counts[name].items()) for n in (place << 16 | c, k)
    ]
    return cells, struct.pack(f"<{len(flat)}I", *flat)
