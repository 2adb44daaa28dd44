"""How long things took, counted by site and hour (`times_by_site`): each study's part is kept (`times_of_studies`), and
whenever one changes, its ten seconds (`times_by_slot`) and its hour are added up anew. An archive that is imported puts
100,000 studies into an hour: no batch reads them all. Shell over the tables; `part` is pure.

What decides of a study comes by five topics, in any order, and at two workers at once. So nothing is added to a count:
1. all that is known of a study is read, its part of it is written
2. all parts of its slot are read, their sum is written: of two who write at once at least one reads both
3. all slots of its hour are read, their sum is written: likewise
Each carries a timestamp that grows with what is known, a sum's being the sum of its parts'; so who knew less loses,
also when they write later, and a rebuild ends in the same rows and write times. A study stays in its slot: site and
moment of a first pack never change.

What a process has added up it remembers, and passes over news that change nothing (more packs, further looks). A crash
forgets that, so a batch that comes again is added up again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from infra.ports import Row, Select, Tables
from schemas import overlay as overlays
from schemas.tables import Upsert, Write
from schemas.times import Way, added, cell, codes, counted, has_report, way
from streams.facts import milliseconds
from streams.milestones import FINAL, ORDERED
from streams.milestones import TABLE as MILESTONES

PARTS, SLOTS, SUMS = "times_of_studies", "times_by_slot", "times_by_site"
DELIVERIES: Final = "deliveries_by_report"
REMEMBERED_MAX: Final = 20_000
"""Studies."""
LATEST_MS: Final = 1 << 42
"""Later than any time that is met (2109)."""
STAMP_MOST: Final = (1 << 63) - 1
"""Of some 400,000 studies that were all read and delivered within an hour of a site."""
MONTH, HOUR = 6, 10
"""So many digits of a slot say its month, and its hour."""
_STUDY: Final = (
    "study_uid", "first_site", "first_arrival", "modalities", "completed_revision", "completed_time", "overlay",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """All that decides about one study."""

    study: Row
    milestones: Sequence[Row]
    deliveries: Sequence[Row]

    @property
    def way(self) -> Way:
        """Its way so far."""
        return way(self.study["study_uid"], self.study, self.milestones, self.deliveries)


class Times:
    """The counting of one worker. Raises Transient: look again."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._done: dict[str, Way] = {}
        """What is added up."""

    async def look(self, writes: Iterable[Write]) -> int:
        """Count anew the studies that `writes`, which are applied, say anything of; how many rows that gave."""
        known = await self._known(await self._touched(writes))
        # Step 1
        parts = [part(k) for k in known]
        await self._tables.apply(parts)
        # Step 2
        slots = list(dict.fromkeys((p.key["site"], p.key["slot"]) for p in parts))
        answers = await self._select([Select(PARTS, {"site": site, "slot": slot}) for site, slot in slots])
        sums = [of_slot(site, slot, rows) for (site, slot), rows in zip(slots, answers, strict=True)]
        await self._tables.apply(sums)
        # Step 3
        hours = list(dict.fromkeys((s.key["site"], s.key["hour"]) for s in sums))
        answers = await self._select([Select(SLOTS, {"site": site, "hour": hour}) for site, hour in hours])
        whole = [of_hour(site, hour, rows) for (site, hour), rows in zip(hours, answers, strict=True)]
        await self._tables.apply(whole)
        if len(self._done) + len(known) > REMEMBERED_MAX:
            self._done.clear()
        self._done |= {k.study["study_uid"]: k.way for k in known}
        return len(parts) + len(sums) + len(whole)

    async def _touched(self, writes: Iterable[Write]) -> list[str]:
        touched: dict[str, None] = {}
        reports: dict[str, None] = {}
        for write in writes:
            if not isinstance(write, Upsert):
                continue
            if write.table in ("studies", MILESTONES):
                if is_news(write, self._done.get(write.key["study_uid"])):
                    touched[write.key["study_uid"]] = None
            elif write.table == DELIVERIES and has_report(write.key["destination"]):
                reports[write.key["report_id"]] = None
        for rows in await self._select([Select("reports", {"report_id": r}, ("study_uids",)) for r in reports]):
            touched |= dict.fromkeys(uid for row in rows for uid in row["study_uids"] or ())
        return list(touched)

    async def _known(self, uids: Sequence[str]) -> list[Known]:
        studies = await self._select([Select("studies", {"study_uid": uid}, _STUDY) for uid in uids])
        # What is told of a study before it came is read when it comes
        there = [rows[0] for rows in studies if rows and rows[0]["first_arrival"] is not None]
        milestones = await self._select([Select(MILESTONES, {"study_uid": s["study_uid"]}) for s in there])
        signed = [{r["of"] for r in rows if r["step"] == FINAL} for rows in milestones]
        reports = sorted(set[str]().union(*signed))
        answers = await self._select([Select(DELIVERIES, {"report_id": r}) for r in reports])
        told = dict(zip(reports, answers, strict=True))
        return [
            Known(study, rows, [d for r in sorted(of) for d in told[r]])
            for study, rows, of in zip(there, milestones, signed, strict=True)
        ]

    async def _select(self, selects: Sequence[Select]) -> list[list[Row]]:
        return await self._tables.select_many(selects) if selects else []


def is_news(write: Upsert, done: Way | None) -> bool:
    """Whether a write to `studies` or `milestones` may change what is added up of a study."""
    if write.table == MILESTONES:
        step = write.key["step"]
        before = None if done is None or step == ORDERED else done.steps.get(step)
        return before is None or write.key["at"] < milliseconds(before)
    if "modalities" in write.columns:
        return done is None or tuple(sorted(write.columns["modalities"])) != done.modalities
    return "completed_revision" in write.columns or "overlay" in write.columns


def part(known: Known) -> Upsert:
    """What a study adds to its slot: nothing once it is rejected as a whole."""
    study, found = known.study, known.way
    laid = overlays.decode(study["overlay"]) if study["overlay"] else None
    gone = laid is not None and laid.whole is not None
    stamp = _stamp(known, found, laid.revision + 1 if laid else 0)
    key = {"site": study["first_site"], "slot": slot_of(study["first_arrival"]), "study_uid": study["study_uid"]}
    columns = {"cell": cell(found), "codes": b"" if gone else codes(found), "stamp": stamp}
    return Upsert(PARTS, key, columns, stamp)


def _stamp(known: Known, found: Way, corrected: int) -> int:
    """A number that grows with all that comes of a study and changes its part: first times only become earlier, the
    rest only becomes more. A delivery that is told again may have become later: its attempt outweighs that.
    """
    firsts = {s: at for s, at in found.steps.items() if s not in ("arrived", "complete")}
    earlier = sum(LATEST_MS - milliseconds(at) for at in firsts.values())
    told = sum(d["attempt"] * LATEST_MS for d in known.deliveries if has_report(d["destination"]))
    ordered = sum(row["step"] == ORDERED for row in known.milestones)
    complete = found.steps.get("complete")
    completed = milliseconds(complete) + 1000 * known.study["completed_revision"] if complete else 0
    stamp: int = earlier + told + ordered + completed + len(found.modalities) + corrected
    return stamp


def of_slot(site: str, slot: str, rows: Sequence[Row]) -> Upsert:
    """The sum of a slot's parts."""
    cells, counts = counted((r["cell"], r["codes"]) for r in rows)
    stamp = sum(r["stamp"] for r in rows)
    key = {"site": site, "hour": slot[:HOUR], "slot": slot}
    return Upsert(SLOTS, key, {"cells": cells, "counts": counts, "stamp": stamp}, stamp)


def of_hour(site: str, hour: str, rows: Sequence[Row]) -> Upsert:
    """The sum of an hour's slots."""
    cells, counts = added((r["cells"] or (), r["counts"] or b"") for r in rows)
    stamp = min(STAMP_MOST, sum(r["stamp"] for r in rows))
    return Upsert(SUMS, {"site": site, "month": hour[:MONTH], "hour": hour}, {"cells": cells, "counts": counts}, stamp)


def slot_of(moment: datetime) -> str:
    """YYYYMMDDHHMMS, UTC: ten seconds."""
    return f"{moment.astimezone(UTC):%Y%m%d%H%M%S}"[:-1]
