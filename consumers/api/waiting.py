"""What waits for a report: which studies do, and in which order they are read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Row = Mapping[str, Any]

SIGNED: Final = frozenset({"final", "amended", "corrected", "appended"})
"""FHIR R4 DiagnosticReport.status of what needs nobody any more."""
BEGUN: Final = frozenset({"registered", "partial", "preliminary"})
NOT_READ: Final = frozenset({"SR", "PR", "KO", "DOC", "SEG", "REG", "RWV", "AU", "RTSTRUCT", "RTPLAN", "RTDOSE"})
"""Modalities (PS3.3 §C.7.3.1.1.1) of which there is nothing to look at."""
OLD: Final = timedelta(days=92)
"""A study that was made so long ago has not come to be read: it was imported."""
PRIORITIES: Final = ("stat", "asap", "urgent", "routine")
"""FHIR R4 ServiceRequest.priority, in the order in which they are read."""


@dataclass(frozen=True)
class Standing:
    """The reports of one study."""

    signed: bool
    begun: str
    """Id of one that is not final yet; empty if none is."""
    status: str
    """Of that one."""


def standing(rows: Iterable[Row]) -> Standing:
    """From all versions of a study's reports (rows of `reports_by_study`)."""
    newest: dict[str, Row] = {}
    for row in rows:
        if row["report_id"] not in newest or row["version"] > newest[row["report_id"]]["version"]:
            newest[row["report_id"]] = row
    begun = [r for r in newest.values() if r["status"] in BEGUN]
    last = max(begun, key=lambda r: str(r["issued"]), default=None)
    signed = any(r["status"] in SIGNED for r in newest.values())
    return Standing(signed, last["report_id"] if last else "", last["status"] if last else "")


def is_to_read(study: Row, now: datetime) -> bool:
    """Whether a row of `studies` is one that somebody has to look at."""
    modalities = frozenset(study["modalities"] or ())
    if modalities and modalities <= NOT_READ:
        return False
    try:
        made = datetime.strptime(study["study_date"] or "", "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return True
    return now - made <= OLD


def priority_of(order: Row | None) -> str:
    """What an order asks for; `routine` where there is none or it says nothing."""
    found = (order or {}).get("priority") or ""
    return found if found in PRIORITIES else PRIORITIES[-1]


def in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The most urgent first, of these the one that has waited longest."""
    return sorted(rows, key=lambda r: (PRIORITIES.index(r["priority"]), r["waits_since"], r["study_uid"]))
