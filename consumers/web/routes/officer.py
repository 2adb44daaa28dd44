"""For the data protection officer: emergencies, refusals, and who looked at what; to be kept as CSV.

A list of accesses is itself looked at under the officer's name. It shows pseudonyms and UIDs, no patient's name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from starlette.responses import Response

from consumers.web.frame import HEADERS, Frame, View
from consumers.web.inner import Refused
from infra import clock
from schemas.roles import Permission

LISTS = ("emergency", "denied", "actor", "study", "patient")
LIMIT = "200"
EXPORT_LIMIT = "1000"
EXPORT_MAX = 20_000
"""Rows of a file; the filter makes it smaller."""
COLUMNS = (
    "occurred", "outcome", "actor", "role", "purpose", "action", "study_uid", "patient_key", "reason", "stated", "uses",
    "bytes", "last_used", "address", "via", "access_id",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/accesses", accesses, Permission.ACCESS_READ_ANY)
    frame.get("/web/accesses.csv", export, Permission.ACCESS_READ_ANY)


def _asked(view: View) -> tuple[str, dict[str, str]]:
    kind = view.option("list", 16)
    asked = {n: view.option(n, 200) for n in ("month", "day", "actor", "study", "patient", "before")}
    return (kind if kind in LISTS else LISTS[0]), asked


def enough(kind: str, asked: Mapping[str, str]) -> bool:
    """Whether a list's question is whole."""
    return kind in ("emergency", "denied") or bool(asked[kind])


async def _page(view: View, kind: str, asked: Mapping[str, str], limit: str) -> tuple[list[dict[str, Any]], str]:
    """(rows, where the next page goes on). Raises Refused."""
    day, month = asked["day"].replace("-", ""), asked["month"].replace("-", "")
    way = {"limit": limit, "before": asked["before"]}
    match kind:
        case "emergency":
            found = await view.get("/accesses", outcome="emergency", month=month, **way)
        case "denied":
            found = await view.get("/accesses", outcome="denied", day=day, **way)
        case "actor":
            found = await view.get("/accesses", actor=asked["actor"], day=day, **way)
        case "study":
            found = await view.get(f"/studies/{quote(asked['study'], safe='')}/accesses", **way)
        case _:
            found = await view.get(f"/patients/{quote(asked['patient'], safe=':')}/accesses", **way)
    known = {"study": {"study_uid": asked["study"]}, "patient": {"patient_key": asked["patient"]}}.get(kind, {})
    rows = [{**dict.fromkeys(COLUMNS, ""), **known, **row} for row in found["accesses"]]
    return rows, next(iter(parse_qs(urlsplit(found.get("next", "")).query).get("before", [])), "")


async def accesses(view: View) -> Response:
    """One list."""
    kind, asked = _asked(view)
    rows: list[dict[str, Any]] = []
    fault, before = False, ""
    if enough(kind, asked):
        try:
            rows, before = await _page(view, kind, asked, LIMIT)
        except Refused as refused:
            if refused.told.status not in (400, 404):
                raise
            fault = True
    return view.render(
        "accesses.html",
        list=kind,
        asked=asked,
        asked_enough=enough(kind, asked),
        rows=rows,
        fault=fault,
        older=view.here(list=kind, before=before) if before else "",
        export=view.here(list=kind).replace("/web/accesses", "/web/accesses.csv", 1),
    )


async def export(view: View) -> Response:
    """The same list as CSV (RFC 4180), for the officer's files."""
    kind, asked = _asked(view)
    rows: list[dict[str, Any]] = []
    while enough(kind, asked) and len(rows) < EXPORT_MAX:
        found, before = await _page(view, kind, asked, EXPORT_LIMIT)
        rows += found
        if not before:
            break
        asked["before"] = before
    name = f"sijil-accesses-{kind}-{clock.now():%Y%m%dT%H%M%SZ}.csv"
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(csv_of(rows), headers=headers, media_type="text/csv; charset=utf-8")


def csv_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """With a byte order mark, by which spreadsheets know UTF-8; no cell that one would take for a formula."""
    out = io.StringIO()
    out.write("\ufeff")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[c]) for c in COLUMNS])
    return out.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
