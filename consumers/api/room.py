"""What the handlers of the query API share: settings, read models, packs, and who a study belongs to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from consumers.api import queries
from consumers.api.guard import Ask
from consumers.api.retrieve import Retriever
from consumers.api.views import Views
from infra import clock
from infra.ports import Objects, Row, Select
from infra.settings import Settings
from schemas.errors import NotFound

OWNER_S = 60.0
"""How long a study's owner is believed: a reassignment must show."""
OWNERS_MAX = 50_000


@dataclass
class Room:
    """The query API of one process."""

    settings: Settings
    views: Views
    objects: Objects
    retriever: Retriever
    _owners: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict)

    def base(self, ask: Ask) -> str:
        """URL of the DICOMweb service as the client sees it."""
        return (self.settings.http_public_url.rstrip("/") or ask.origin) + "/dicom-web"

    async def with_owner(self, study_uid: str, select: Select) -> tuple[str, list[Row]]:
        """(patient key of a study, rows of a read about it), asked together. Raises NotFound for an unknown study."""
        known = self._owners.get(study_uid)
        now = clock.monotonic()
        if known is not None and known[0] > now:
            return known[1], await self.views.tables.select(select)
        owner, rows = await self.views.tables.select_many((queries.study_owner(study_uid), select))
        if not owner:
            raise NotFound("this study is not in the archive, or not yet searchable")
        key = owner[0]["patient_key"] or ""
        self._owners[study_uid] = (now + OWNER_S, key)
        if len(self._owners) > OWNERS_MAX:
            self._owners.popitem(last=False)
        return key, rows

    async def owners(self, study_uids: Sequence[str]) -> list[tuple[str, str]]:
        """(study_uid, patient key) of several studies; an empty key for one that is not known."""
        answers = await self.views.tables.select_many([queries.study_owner(u) for u in study_uids])
        return [
            (u, (rows[0]["patient_key"] or "") if rows else "") for u, rows in zip(study_uids, answers, strict=True)
        ]
