"""The port by which a gateway asks what the whole archive has, for a storage commitment (PS3.4 Annex J).

Read models belong to another room than gateways; this is what the one promises and the other asks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

Mark = Mapping[int, int]
"""Where the log of arrivals ended at some moment: partition → next offset."""


class CommittedInstances(Protocol):
    """Instances that are in S3 and whose event Kafka has acknowledged. Called by threads; may block for seconds."""

    def mark(self) -> Mark:
        """Where the log ends now. Raises Transient."""

    def find(self, sop_uids: Collection[str]) -> Mapping[str, frozenset[str]]:
        """SOP Instance UID → SOP classes of its copies, of those known. Raises Transient."""

    def has_passed(self, mark: Mark) -> bool:
        """Whether everything before `mark` would be found. Raises Transient."""
