"""Studies of a list as they are now: those that people have corrected are read again, with what was decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from consumers.api import overlay, queries
from infra.ports import Row, Select
from schemas.overlay import decode


class Reads(Protocol):
    """What `infra.ports.Tables` does here."""

    async def select_many(self, queries: Sequence[Select], /) -> list[list[Row]]: ...


async def current(tables: Reads, rows: Sequence[Row]) -> list[Row]:
    """`rows` of a list or of `studies`, in their order, without those of which nothing is to be seen. One that is
    corrected has all columns of `studies`, and may belong in the list no longer.
    """
    touched = [r["study_uid"] for r in rows if r.get("corrected") or r.get("overlay")]
    if not touched:
        return list(rows)
    answers = await tables.select_many([queries.study_state(uid) for uid in touched])
    now = {uid: found[0] for uid, found in zip(touched, answers, strict=True) if found and found[0]["answer"]}
    laid = {uid: decode(row["overlay"]) for uid, row in now.items() if row["overlay"]}
    hiding = [uid for uid, of in laid.items() if of.hides]
    below = (
        await tables.select_many(
            [queries.members_of(uid) for uid in hiding] + [queries.series_of(uid) for uid in hiding]
        )
        if hiding
        else []
    )
    members = dict(zip(hiding, below, strict=False))
    series = dict(zip(hiding, below[len(hiding) :], strict=True))
    found = []
    for row in rows:
        uid = row["study_uid"]
        if not (row.get("corrected") or row.get("overlay")):
            found.append(row)
        elif uid in laid:
            fresh = overlay.study(now[uid], laid[uid], members.get(uid, ()), series.get(uid, ()))
            if fresh is not None and _is_its_place(row, fresh):
                found.append(fresh | {n: row[n] for n in ("moment",) if n in row})
    return found


def _is_its_place(row: Row, fresh: Row) -> bool:
    """Whether a list that goes by date and time has a study where it is now: one that was moved is there too."""
    place = row.get("moment")
    return place is None or not fresh["study_date"] or place == fresh["study_date"] + fresh["study_time"]
