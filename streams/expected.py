"""What devices (MPPS) say is expected of a study, and what that means for its completion. Pure.

While a step is in progress the study waits longer than its quiet time; when every step has ended and all instances that
they list have arrived, it waits no more. A device that lists nothing, or not all it sends, leaves the study to its
quiet time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.pack_rows import HASH_BYTES, PackRow, distinct

TABLE = "steps_by_study"
COLUMNS = ("status", "sops")
ENDED = frozenset({"completed", "discontinued"})


@dataclass(frozen=True, slots=True)
class Step:
    """A performed procedure step of a study."""

    ended: bool
    sops: frozenset[bytes]
    """Hashes of the instances that it lists."""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Step:
        """From a row with COLUMNS."""
        listed = bytes(row["sops"] or b"")
        hashes = frozenset(listed[i : i + HASH_BYTES] for i in range(0, len(listed), HASH_BYTES))
        return cls(row["status"] in ENDED, hashes)


def waits_ms(steps: Iterable[Step], quiet_ms: int, open_ms: int) -> int:
    """How long after its last arrival a study with these steps is complete, whatever they list."""
    return max(quiet_ms, open_ms) if any(not s.ended for s in steps) else quiet_ms


def all_there(steps: Sequence[Step], rows: Iterable[PackRow]) -> bool:
    """Whether every step has ended, and `rows` have all instances that they list, of which there is one at least."""
    listed = {h for step in steps for h in step.sops}
    if not listed or any(not s.ended for s in steps):
        return False
    return listed <= distinct(part for row in rows for part in row.summary.series)
