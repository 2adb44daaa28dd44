"""Whether studies are arriving, so that slow work may wait for a calmer time. Pure."""

from __future__ import annotations

from collections.abc import Mapping

LAG_MAX = 20
"""Events that the read models may be behind before the machine counts as busy."""


class Traffic:
    """Looks at the end of a topic again and again."""

    def __init__(self, calm_s: float) -> None:
        """Calm is when nothing has arrived for `calm_s` seconds."""
        self._calm_s = calm_s
        self._ends: Mapping[int, int] = {}
        self._moved_at = 0.0

    def busy(self, ends: Mapping[int, int], applied: Mapping[int, int], at: float) -> bool:
        """`ends`: next offset of each partition; `applied`: what the read models have of it; `at`: monotonic seconds.

        The first look counts as an arrival.
        """
        if ends != self._ends:
            self._ends, self._moved_at = dict(ends), at
        lag = sum(max(0, end - applied.get(partition, 0)) for partition, end in ends.items())
        return lag > LAG_MAX or at - self._moved_at < self._calm_s
