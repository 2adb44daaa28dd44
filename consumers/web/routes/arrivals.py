"""Did it arrive? A site's day: what came, what is missing, what was refused, and what to do about it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from starlette.responses import Response

from consumers.web import show
from consumers.web.frame import Frame, View
from infra import clock
from schemas.roles import Permission, Scope, scope_of

# What somebody at the device can do about a reason of `study.instance-rejected`.
_TODO: Mapping[str, str] = {
    "truncated": "send-again",
    "request-broken-off": "send-again",
    "bulk-data-missing": "send-again",
    "damaged-structure": "service",
    "too-many-elements": "service",
    "too-deep": "service",
    "damaged-deflate": "service",
    "inflates-too-large": "service",
    "uid-missing": "service",
    "uid-invalid": "service",
    "bad-file-meta-value": "service",
    "sop-class-mismatch": "service",
    "sop-instance-mismatch": "service",
    "sop-class-not-storage": "not-an-image",
    "dicomdir": "not-an-image",
    "not-dicom": "not-an-image",
    "media-type": "not-an-image",
    "transfer-syntax": "transfer-syntax",
    "no-transfer-syntax": "transfer-syntax",
    "study-mismatch": "send-again",
}
OTHER_TODO = "ask"


def add(frame: Frame) -> None:
    """Register the page."""
    frame.get("/web/arrivals", arrivals, Permission.QUARANTINE_READ)


async def arrivals(view: View) -> Response:
    """Of one site, on one local day."""
    caller = view.caller
    own = sorted(caller.sites - {"*"}) if caller else []
    anywhere = caller is not None and scope_of(caller.role, Permission.STUDY_SEARCH) is Scope.WHOLE
    site = view.option("site", 64) or (own[0] if own else view.frame.settings.site)
    zone = view.frame.zone
    today = clock.now().astimezone(zone).date()
    day = _day(view.option("day", 10)) or today
    since = datetime(day.year, day.month, day.day, tzinfo=zone)
    until = datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
    # Local midnights are none of UTC's: what was refused is listed by UTC's days
    said = {"since": clock.rfc3339(since), "until": clock.rfc3339(until)}
    found = await view.get("/arrivals", site=site, **said)
    days = sorted({f"{since.astimezone(UTC):%Y%m%d}", f"{until.astimezone(UTC):%Y%m%d}"})
    refused: list[dict[str, Any]] = []
    for utc_day in days:
        refused += (await view.get("/rejections", day=utc_day, limit="1000"))["rejections"]
    refused = [r for r in refused if r["site"] == site and _within(r["received"], since, until)]
    rows = [_row(f, view.language.code) for f in found["arrivals"]]
    return view.render(
        "arrivals.html",
        site=site,
        sites=[(s, s) for s in own] if own and not anywhere else [],
        day_text=day.isoformat(),
        self_url=view.here(),
        rows=rows,
        more=found["more"],
        refused=together(refused),
        figures={
            "studies": len(rows),
            "images": sum(r["s"].instances or 0 for r in rows),
            "open": sum(r["state"] != "complete" for r in rows),
            "refused": len(refused),
        },
    )


def _row(found: Mapping[str, Any], code: str) -> dict[str, Any]:
    study = show.study(found["study"], code)
    return {
        "s": study,
        "state": found["state"],
        "last_arrival": found["last_arrival"],
        "todo": todo_of(found["state"], study),
    }


def todo_of(state: str, study: show.Study) -> str:
    """What to do about a study that arrived."""
    if not study.patient_id:
        return "no-id"
    return {"open": "wait", "reopened": "late"}.get(state, "nothing")


def refusal_todo(reason: str) -> str:
    """What to do about a reason."""
    return _TODO.get(reason, OTHER_TODO)


def together(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Refusals of one device for one reason as one line with their count, the latest first."""
    found: OrderedDict[tuple[str, str, str], dict[str, Any]] = OrderedDict()
    for row in sorted(rows, key=lambda r: r["received"], reverse=True):
        key = (row["calling_ae"], row["door"], row["reason"])
        if key in found:
            found[key]["count"] += 1
        else:
            found[key] = {**row, "count": 1, "todo": refusal_todo(row["reason"])}
    return list(found.values())


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _within(text: str, since: datetime, until: datetime) -> bool:
    at = show.moment(text)
    return at is not None and since <= at < until
