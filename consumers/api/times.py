"""How long things took, of many studies: their counts by site and hour (`times_by_site`) added up, and the percentiles
of the sums. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from schemas.times import INTERVALS, STEPS, meaning, told_s

PERCENTILES: Final = (50, 90, 95)
UNKNOWN: Final = ""
"""Group of studies of which it is not known."""

Group = Callable[[str, str, str], str]
"""(site, hour of arrival YYYYMMDDHH in UTC, cell as in `schemas.times`) → group."""


def grouping(by: str, zone: ZoneInfo) -> Group | None:
    """What studies are grouped by; None for what nobody can be asked."""

    def local(site: str, hour: str, cell: str) -> str:
        return f"{datetime.strptime(hour, '%Y%m%d%H').replace(tzinfo=UTC).astimezone(zone):%H}"

    return {
        "site": lambda site, hour, cell: site,
        "modality": lambda site, hour, cell: cell.partition("\t")[0] or UNKNOWN,
        "priority": lambda site, hour, cell: cell.partition("\t")[2] or UNKNOWN,
        "hour": local,
    }.get(by)


class Sums:
    """Counts by group. Adding is exact and in any order."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._groups: dict[str, int] = {}
        self._counts: Counter[int] = Counter()
        """By number of the group and code (the lower 16 bits)."""

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows of `times_by_site`."""
        groups: list[int] = []
        starts: list[int] = []
        parts: list[bytes] = []
        for row in rows:
            starts.append(len(groups))
            for cell in row["cells"] or ():
                name = self._group(row["site"], row["hour"], cell)
                groups.append(self._groups.setdefault(name, len(self._groups)))
            parts.append(row["counts"] or b"")
        pairs = np.frombuffer(b"".join(parts), "<u4").reshape(-1, 2).astype(np.int64)
        if not len(pairs):
            return
        places = np.repeat(np.array(starts), [len(p) // 8 for p in parts]) + (pairs[:, 0] >> 16)
        keys, which = np.unique(np.array(groups)[places] << 16 | pairs[:, 0] & 0xFFFF, return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, which, pairs[:, 1])
        self._counts.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))

    def summary(self) -> list[dict[str, Any]]:
        """Of each group how many studies, how many have taken each step, and each interval's percentiles in seconds."""
        told: dict[int, dict[str, dict[int, int]]] = {}
        for key, count in sorted(self._counts.items()):
            name, number = meaning(key & 0xFFFF)
            told.setdefault(key >> 16, {}).setdefault(name, {})[number] = count
        return [
            {
                "group": name,
                "studies": found["arrived"][0],
                "steps": {s: found[s][0] for s in STEPS if s in found},
                "intervals": {i: _told(found[i]) for i in INTERVALS if i in found},
            }
            for name, n in sorted(self._groups.items())
            if (found := told.get(n))
        ]


def _told(buckets: Mapping[int, int]) -> dict[str, float | int]:
    n = sum(buckets.values())
    return {"n": n} | {f"p{p}": percentile(buckets, n, p) for p in PERCENTILES}


def percentile(buckets: Mapping[int, int], n: int, percent: int) -> float:
    """Nearest rank: the smallest of the `n` values that at least `percent` of them do not exceed, but for ERROR.
    `buckets`: number → count, ascending.
    """
    left = -(-n * percent // 100)
    for number, count in buckets.items():
        left -= count
        if left <= 0:
            return round(told_s(number), 6)
    raise ValueError("a percentile of nothing")
