"""What waits for a report (`reading_waiting`): its row is made anew whenever anything came of a study, its reports or
its orders. Shell over the tables; `listed` is pure.

What decides comes by four topics, in any order. Whoever wrote last reads all of it, so its row is the right one; the
write's timestamp grows with each thing that came, so a row that knew less loses, also when it is written later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from infra.ports import Row, Select, Tables
from schemas import overlay as overlays
from schemas.overlay import Overlay
from schemas.tables import Delete, Upsert, Write
from schemas.to_read import ANY, NOT_READ, PRIORITIES, is_to_read, of_study, priority_of, standing
from streams.facts import milliseconds
from streams.milestones import FINAL

TABLE: Final = "reading_waiting"
ORDERS: Final = "priorities_by_accession"
NEW_IMAGES, TAKEN_BACK = "new-images", "taken-back"
"""Why a study that had a signed report waits again."""
STUDIES_MAX: Final = 200
"""Studies of one accession number that an order is looked up for."""
_STUDY: Final = (
    "study_uid", "study_date", "patient_key", "accession", "modalities", "sites", "first_arrival", "last_images",
    "last_offset", "overlay",
)  # fmt: skip
_REPORT: Final = ("report_id", "version", "status", "issued")
_ACCESSION: Final = "00080050"
_DATE: Final = "00080020"
_CORRECTED: Final = 1_000_000
"""A correction outweighs all versions of orders: the study may have another accession number by it."""


@dataclass(frozen=True)
class Known:
    """All that decides about one study."""

    study: Row
    laid: Overlay | None
    reports: Sequence[Row]
    finals: Sequence[Row]
    orders: Sequence[Row]

    @property
    def accession(self) -> str:
        """As corrected."""
        return _said(self.study, self.laid, _ACCESSION, "accession")


def _said(study: Row, laid: Overlay | None, tag: str, column: str) -> str:
    return str((laid.study.get(tag) if laid else None) or study[column] or "")


class ToRead:
    """The looking of one worker. Raises Transient: look again."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def look(self, writes: Iterable[Write]) -> int:
        """List anew the studies that `writes`, which are applied, say anything of; how many rows that gave."""
        touched: dict[str, None] = {}
        numbers: dict[tuple[str, str], None] = {}
        for write in writes:
            if write.table == "reports_by_study" or (write.table == "studies" and _decides(write)):
                touched[write.key["study_uid"]] = None
            elif write.table == ORDERS:
                numbers[write.key["site"], write.key["accession"]] = None
        by_order = {
            row["study_uid"]
            for rows in await self._select(
                [
                    Select("studies_by_accession", {"accession": a}, ("study_uid",), limit=STUDIES_MAX)
                    for a in dict.fromkeys(a for _, a in numbers)
                ]
            )
            for row in rows
        }
        known = await self._known(list(touched | dict.fromkeys(sorted(by_order))))
        found = [w for k in known for w in listed(k, moved=k.study["study_uid"] in by_order)]
        await self._tables.apply(found)
        return len(found)

    async def _known(self, uids: Sequence[str]) -> list[Known]:
        answers = await self._select(
            [
                select
                for uid in uids
                for select in (
                    Select("studies", {"study_uid": uid}, _STUDY),
                    Select("reports_by_study", {"study_uid": uid}, _REPORT),
                    Select("milestones", {"study_uid": uid, "step": FINAL}),
                )
            ]
        )
        known: list[Known] = []
        for n in range(0, len(answers), 3):
            studies, reports, finals = answers[n : n + 3]
            # What is told of a study before it came is read when it comes
            if studies and studies[0]["first_arrival"] is not None:
                laid = overlays.decode(studies[0]["overlay"]) if studies[0]["overlay"] else None
                known.append(Known(studies[0], laid, reports, finals, ()))
        places = [(n, s, k.accession) for n, k in enumerate(known) if k.accession for s in sorted(k.study["sites"])]
        orders = await self._select([Select(ORDERS, {"site": s, "accession": a}) for _, s, a in places])
        of: dict[int, list[Row]] = {}
        for (n, _, _), rows in zip(places, orders, strict=True):
            of.setdefault(n, []).extend(rows)
        return [Known(k.study, k.laid, k.reports, k.finals, of.get(n, ())) for n, k in enumerate(known)]

    async def _select(self, selects: Sequence[Select]) -> list[list[Row]]:
        return await self._tables.select_many(selects) if selects else []


def _decides(write: Write) -> bool:
    """Whether a write to `studies` is of an arrival or a correction. A completion changes nothing here."""
    return isinstance(write, Upsert) and ("last_offset" in write.columns or "overlay" in write.columns)


def listed(known: Known, *, moved: bool) -> list[Write]:
    """A study's rows in the lists of its sites and modalities, or their absence. `moved`: it may have been listed with
    another priority.
    """
    study, laid = known.study, known.laid
    uid, arrived = study["study_uid"], study["first_arrival"]
    timestamp = study["last_offset"] + len(known.reports) + sum(o["version"] for o in known.orders)
    timestamp += (laid.revision + 1) * _CORRECTED if laid else 0
    owner = (laid.patient_key if laid else "") or study["patient_key"] or ""
    order = of_study((o for o in known.orders if o["status"]), uid, owner)
    rank = PRIORITIES.index(priority_of(order["priority"] if order else ""))
    told = _why(known)
    modalities = sorted(study["modalities"] or ())
    gone = laid is not None and laid.whole is not None
    if gone or not is_to_read(modalities, _said(study, laid, _DATE, "study_date"), arrived):
        told = None
    writes: list[Write] = []
    month = f"{arrived:%Y%m}"
    for site in sorted(study["sites"] or ()):
        for modality in (ANY, *(m for m in modalities if m not in NOT_READ)):
            place = {"site": site, "modality": modality, "month": month}
            for each in range(len(PRIORITIES)):
                key = {**place, "rank": each, "first_arrival": milliseconds(arrived), "study_uid": uid}
                if told is not None and each == rank:
                    columns = {"why": told[0], "since": milliseconds(told[1])}
                    writes.append(Upsert(TABLE, key, columns, timestamp))
                # What was never written needs no marker of its absence: most studies have no order that moves
                elif moved or known.orders or laid or (each == rank and known.reports):
                    writes.append(Delete(TABLE, key, timestamp))
    return writes


def _why(known: Known) -> tuple[str, datetime] | None:
    """(why it waits again, or empty; since when); None: it waits no longer."""
    stands = standing(known.reports)
    arrived: datetime = known.study["first_arrival"]
    if not stands.signed:
        return (TAKEN_BACK if stands.taken_back and known.finals else "", arrived)
    signed = max((r["at"] for r in known.finals if r["of"] in stands.signed), default=None)
    came: datetime | None = known.study["last_images"]
    return (NEW_IMAGES, came) if signed is not None and came is not None and came > signed else None
