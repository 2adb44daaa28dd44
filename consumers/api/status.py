"""Where a study stands (design, Completeness). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

Row = Mapping[str, Any]


class State(Enum):
    """What is expected of a study."""

    OPEN = "open"
    """More may come."""
    COMPLETE = "complete"
    """Nothing more is expected."""
    REOPENED = "reopened"
    """It was complete, and something came after."""


def state(row: Row) -> State:
    """From a row of `studies`: complete when the revision of its completion is just behind its last arrival."""
    completed = row.get("completed_revision")
    if completed is None:
        return State.OPEN
    last = row.get("last_offset")
    return State.COMPLETE if last is None or completed > last else State.REOPENED


def describe(row: Row, packs: Sequence[Row], steps: Sequence[Row] = ()) -> dict[str, Any]:
    """The status document of a study; `packs` are rows of `packs` in log order, `steps` of `steps_by_study`."""
    found = state(row)
    document: dict[str, Any] = {
        "study_uid": row["study_uid"],
        "patient_key": row["patient_key"],
        "state": found.value,
        "series": row["series_count"],
        "instances": row["instance_count"],
        "bytes": row["bytes"],
        "packs": row["pack_count"],
        "modalities": sorted(row["modalities"] or ()),
        "sites": sorted(row["sites"] or ()),
        "marks": sorted(row["marks"] or ()),
        "first_arrival": row["first_arrival"],
        "last_arrival": row["last_arrival"],
        "last_images": row["last_images"],
    }
    if found is not State.OPEN:
        document["completed"] = {
            "revision": row["completed_revision"],
            "basis": row["completed_basis"],
            "time": row["completed_time"],
            "instances": row["completed_instances"],
        }
    document["steps"] = [
        {
            "step_uid": s["step_uid"],
            "status": s["status"],
            "modality": s["modality"],
            "station_ae": s["station_ae"],
            "started": s["started"],
            "ended": s["ended"],
            "instances": s["instances"],
        }
        for s in steps
    ]
    document["stored_in"] = [
        {
            "pack_id": p["pack_id"],
            "site": p["site"],
            "door": p["door"],
            "arrival": p["arrival"],
            "instances": p["instances"],
            "size": p["size"],
            "archived": bool(p["archive_version_id"]),
            "retain_until": p["retain_until"],
        }
        for p in packs
    ]
    return document
