"""Which days have studies and how many, newest first: years, their months, their days (`study_counts`).

Two reads lead from a year to its days, however many studies there are, and a page far down leaves out what lies above
it by years, months and days without a look at them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from consumers.api import queries
from consumers.api.walk import Reader
from schemas.tables import EVER


class Calendar:
    """The days within [first, last] (YYYYMMDD; empty: open), less those that hold nothing but what is skipped."""

    def __init__(self, reader: Reader, first: str = "", last: str = "", skip: int = 0) -> None:
        self._reader, self._first, self._last = reader, first, last
        self._skip = skip
        self.left = 0
        """Studies of the first day given that are left to leave out."""

    def days(self) -> AsyncIterator[tuple[str, int]]:
        """(day, studies on it)."""
        return self._below(EVER, 4)

    async def _below(self, within: str, length: int) -> AsyncIterator[tuple[str, int]]:
        """`length`: characters of the parts."""
        counts: dict[str, int] = {}
        for row in await self._reader.select(queries.counts(within)):
            counts[row["part"]] = counts.get(row["part"], 0) + row["studies"]
        for part, studies in counts.items():
            if not self._overlaps(part, length):
                continue
            if studies <= self._skip:
                self._skip -= studies
            elif length == 8:
                self.left, self._skip = self.left + self._skip, 0
                yield part, studies
            else:
                async for day in self._below(part, length + 2):
                    yield day

    def _overlaps(self, part: str, length: int) -> bool:
        after = not self._first or part >= self._first[:length]
        return after and (not self._last or part <= self._last[:length])
