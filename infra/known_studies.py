"""The port by which results that come in are matched: what is known of studies, as they are now.

Read models belong to another room than producers; this is what the one promises and the other asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.known_study import KnownStudy


class KnownStudies(Protocol):
    """Studies of the read models. Rejected ones are not there."""

    async def by_accession(self, accession: str) -> Sequence[KnownStudy]:
        """Those with this accession number, of whatever site. Raises Transient."""

    async def by_uid(self, study_uids: Sequence[str]) -> Sequence[KnownStudy]:
        """Those of these UIDs that are there. Raises Transient."""
