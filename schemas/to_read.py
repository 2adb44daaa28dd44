"""What waits for a report: which studies are to be looked at, where their reports stand, how urgent it is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schemas.lifecycle import AWAIT_SIGNATURE, SIGNED, TAKEN_BACK

NOT_READ: Final = frozenset({"SR", "PR", "KO", "DOC", "SEG", "REG", "RWV", "AU", "RTSTRUCT", "RTPLAN", "RTDOSE"})
"""Modalities (PS3.3 §C.7.3.1.1.1) of which there is nothing to look at."""
OLD: Final = timedelta(days=92)
"""A study that was made so long before it came has not come to be read: it was imported."""
PRIORITIES: Final = ("stat", "asap", "urgent", "routine")
"""FHIR R4 ServiceRequest.priority, in the order in which they are read."""
ANY: Final = ""
"""The list of a site that has its studies of all modalities."""


@dataclass(frozen=True)
class Standing:
    """The reports of one study."""

    signed: frozenset[str]
    """Ids of those that somebody has signed and nobody has taken back."""
    begun: str
    """Id of one that is not final yet; empty if none is."""
    status: str
    """Of that one."""
    taken_back: bool
    """Whether there was one that does not hold any more."""


def standing(rows: Iterable[Mapping[str, Any]]) -> Standing:
    """From all versions of a study's reports (rows of `reports_by_study`)."""
    newest: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["report_id"] not in newest or row["version"] > newest[row["report_id"]]["version"]:
            newest[row["report_id"]] = row
    begun = [r for r in newest.values() if r["status"] in AWAIT_SIGNATURE]
    last = max(begun, key=lambda r: str(r["issued"]), default=None)
    return Standing(
        frozenset(r["report_id"] for r in newest.values() if r["status"] in SIGNED),
        last["report_id"] if last else "",
        last["status"] if last else "",
        any(r["status"] in TAKEN_BACK for r in newest.values()),
    )


def is_to_read(modalities: Collection[str], study_date: str, arrived: datetime) -> bool:
    """Whether somebody has to look at a study. `study_date`: YYYYMMDD, or empty; `arrived`: its first pack, aware."""
    if modalities and NOT_READ.issuperset(modalities):
        return False
    try:
        made = datetime.strptime(study_date, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return True
    return arrived - made <= OLD


def priority_of(said: str | None) -> str:
    """What an order asks for; `routine` where it says nothing that is known."""
    return said if said in PRIORITIES else PRIORITIES[-1]


def of_study(orders: Iterable[Mapping[str, Any]], study_uid: str, patient_key: str) -> Mapping[str, Any] | None:
    """The order that a study was made for, of those of its site's accession number: a number that was given twice may
    be another patient's. Of several the one that names the study, else the newest; a cancelled one only alone.
    """
    own = [o for o in orders if o["study_uid"] == study_uid or o["patient_key"] == patient_key]
    live = [o for o in own if o["status"] != "revoked"] or own
    return max(live, key=lambda o: (o["study_uid"] == study_uid, o["authored"] or "", o["order_id"]), default=None)
