"""What the handlers of the query API share: settings, read models, packs, and who a study belongs to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from consumers.api import overlay, queries
from consumers.api.guard import Ask, OfStudy
from consumers.api.retrieve import Retriever
from consumers.api.scope import Scopes
from consumers.api.views import Views
from infra import clock
from infra.ports import Objects, Row, Select
from infra.settings import Settings
from schemas.errors import NotFound
from schemas.overlay import Overlay, decode

KNOWN_S = 60.0
"""How long a study's owner and an instance's served copy are believed. Neither changes by what arrives, only by what
people correct, and then all is forgotten (`forget`).
"""
OWNERS_MAX = 50_000
COPIES_MAX = 20_000


K = TypeVar("K")
V = TypeVar("V")


class Known(Generic[K, V]):
    """What was read lately: believed for KNOWN_S, the oldest forgotten above a bound."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """None for what is not known or no longer believed."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > clock.monotonic() else None

    def put(self, key: K, value: V) -> None:
        """Remember."""
        self._entries.pop(key, None)
        self._entries[key] = clock.monotonic() + KNOWN_S, value
        if len(self._entries) > self._size_max:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Nothing is known."""
        self._entries.clear()


@dataclass(frozen=True)
class Owned:
    """Whose a study is, and what people decided of it."""

    patient_key: str
    laid: Overlay | None


@dataclass
class Room:
    """The query API of one process."""

    settings: Settings
    views: Views
    objects: Objects
    retriever: Retriever
    scopes: Scopes = field(init=False)
    _owners: Known[str, Owned] = field(default_factory=lambda: Known(OWNERS_MAX))
    _copies: Known[tuple[str, str, str], Row] = field(default_factory=lambda: Known(COPIES_MAX))

    def __post_init__(self) -> None:
        self.scopes = Scopes(lambda: self.views.tables)

    def base(self, ask: Ask) -> str:
        """URL of the DICOMweb service as the client sees it."""
        return (self.settings.http_public_url.rstrip("/") or ask.origin) + "/dicom-web"

    async def with_owner(self, study_uid: str, select: Select) -> tuple[str, list[Row]]:
        """(patient key of a study, rows of a read about it), asked together. Raises NotFound for an unknown study."""
        owned, rows = await self._with_owned(study_uid, select)
        return owned.patient_key, rows

    async def _with_owned(self, study_uid: str, select: Select) -> tuple[Owned, list[Row]]:
        known = self._owners.get(study_uid)
        if known is not None:
            return known, await self.views.tables.select(select)
        found, rows = await self.views.tables.select_many((queries.study_owner(study_uid), select))
        if not found:
            raise NotFound("this study is not in the archive, or not yet searchable")
        owned = _owned(found[0])
        self._owners.put(study_uid, owned)
        return owned, rows

    async def copies(
        self, study_uid: str, series_uid: str = "", sop_uid: str = "", *, original: bool = False
    ) -> tuple[str, list[Row]]:
        """(patient key, served copies) of a study, a series or an instance, as they lie in their packs and with what
        people decided of them; `original`: as they are stored, also those that are rejected.

        Who reads a series' metadata reads its frames next: each instance is then known already. Raises NotFound.
        """
        if sop_uid:
            owner, copy = self._owners.get(study_uid), self._copies.get((study_uid, series_uid, sop_uid))
            if owner is not None and copy is not None and not original:
                return owner.patient_key, [copy]
            select = queries.first_copy(study_uid, series_uid, sop_uid)
        else:
            select = queries.copies(study_uid, series_uid)
        owned, rows = await self._with_owned(study_uid, select)
        if owned.laid is not None:
            if sop_uid:  # another than the first may be the one
                rows = await self.views.tables.select(queries.copies(study_uid, series_uid, sop_uid))
            rows = overlay.served(owned.laid, rows, original=original)
        served: dict[tuple[str, str], Row] = {}
        for row in rows:
            served.setdefault((row["series_uid"], row["sop_uid"]), row)
        if not served:
            raise NotFound("this is not in the archive, or not yet searchable")
        if len(served) <= COPIES_MAX // 4 and not original:
            for (series, sop), row in served.items():
                self._copies.put((study_uid, series, sop), row)
        return owned.patient_key, sorted(served.values(), key=lambda r: (r["record_offset"], r["tar_offset"]))

    def forget(self) -> None:
        """People have corrected something: nothing of studies is believed any more."""
        self._owners.clear()
        self._copies.clear()
        self.scopes.forget()

    async def asked(self, ask: Ask, names: Sequence[str], *, original: bool = False) -> tuple[OfStudy, list[Row]]:
        """The served copies of what an address names: `names` are those of its parts that are UIDs. Raises NotFound."""
        uids = [ask.uid(n) for n in names]
        owner, rows = await self.copies(*uids, original=original)
        return OfStudy(uids[0], owner), rows

    async def owners(self, study_uids: Sequence[str]) -> list[tuple[str, str]]:
        """(study_uid, patient key) of several studies; an empty key for one that is not known."""
        found = {u: owned for u in study_uids if (owned := self._owners.get(u)) is not None}
        unknown = [u for u in study_uids if u not in found]
        answers = await self.views.tables.select_many([queries.study_owner(u) for u in unknown]) if unknown else []
        for study_uid, rows in zip(unknown, answers, strict=True):
            if rows:
                found[study_uid] = _owned(rows[0])
                self._owners.put(study_uid, found[study_uid])
        return [(u, found[u].patient_key if u in found else "") for u in study_uids]


def _owned(row: Row) -> Owned:
    laid = decode(row["overlay"]) if row["overlay"] else None
    return Owned((laid.patient_key if laid else "") or row["patient_key"] or "", laid)
