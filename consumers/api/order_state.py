"""Where an order stands, from what is known of it: its own status, the device's steps, and what has arrived. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.lifecycle import ORDER_CANCELLED

WAITING: Final = "waiting"
STATES: Final = ("draft", "on-hold", WAITING, "in-progress", "discontinued", "arrived", "done", "cancelled")


def state(status: str, steps: Sequence[str], studies: Sequence[str]) -> str:
    """`steps`: in-progress, completed, discontinued (PS3.4 F.7.2); `studies`: `open`, `complete`, `reopened`."""
    if status in ORDER_CANCELLED:
        return "cancelled"
    if status == "completed" or "complete" in studies:
        return "done"
    if "in-progress" in steps:
        return "in-progress"
    if studies:
        return "arrived"
    if "completed" in steps:
        return "in-progress"  # the device has ended, its images are on their way
    if steps:
        return "discontinued"
    return status if status in ("draft", "on-hold") else WAITING


def told(row: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], studies: Mapping[str, str]) -> dict[str, Any]:
    """An order as it is shown. `studies`: UID → state of those that arrived."""
    shown = {name: value for name, value in row.items() if name not in _HIDDEN and value is not None}
    return {
        **shown,
        "state": state(row["status"], [s["status"] for s in steps], list(studies.values())),
        "started": min((s["started"] for s in steps if s["started"]), default=""),
        "arrived": sorted(studies),
    }


_HIDDEN: Final = frozenset({"bucket", "document_key", "document_size", "document_sha256", "stated_by"})
