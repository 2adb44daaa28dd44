"""What a site sent in a time: the studies that something arrived of, as they stand now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from consumers.api import queries, status
from consumers.api.current import current
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, limit_of
from infra import clock
from infra.ports import Row
from schemas.errors import Invalid
from schemas.roles import Permission

DAYS_MAX = 7


def add(guard: Guard, room: Room) -> None:
    """Register the route."""

    async def arrivals(ask: Ask) -> Answer:
        own = min(ask.reach.sites, default=room.settings.site)
        site, limit = ask.option("site") or own, limit_of(ask)
        since, until = span(ask.option("since"), ask.option("until"), clock.now())
        selects = [queries.by_site_day(site, day) for day in days(since, until)]
        listed: dict[str, Row] = {}
        for rows in await room.views.tables.select_many(selects):
            for row in rows:
                if since <= row["last_arrival"] < until:
                    listed[row["study_uid"]] = row
        newest = sorted(listed.values(), key=lambda r: (r["last_arrival"], r["study_uid"]), reverse=True)
        answers = await room.views.tables.select_many([queries.study_state(r["study_uid"]) for r in newest[:limit]])
        found = await current(room.views.tables, [rows[0] for rows in answers if rows])
        found = await room.scopes.kept(ask.reach, found)
        body = {"site": site, "arrivals": [_told(row) for row in found], "more": len(newest) > limit}
        shown = [(row["study_uid"], row["patient_key"] or "") for row in found]
        return Answer(about=OfSearch({"site": (site,)}, shown), content=msgspec.json.encode(body), media_type=JSON)

    guard.get(
        "/arrivals",
        arrivals,
        action="read-arrivals",
        permission=Permission.STUDY_SEARCH,
        summary="Studies of which a site sent something in a time, last arrival first: what is here, and whether"
        " more is expected",
        tag="Studies",
        parameters={
            "site": "the sending site; without it one of the caller's, or the archive's own",
            "since": f"RFC 3339; a day back without it, at most {DAYS_MAX} days before `until`",
            "until": "RFC 3339; now without it",
            "limit": "most studies",
        },
    )


def span(since: str, until: str, now: datetime) -> tuple[datetime, datetime]:
    """What is asked for. Raises Invalid(`option-time`)."""
    try:
        end = datetime.fromisoformat(until) if until else now
        start = datetime.fromisoformat(since) if since else end - timedelta(days=1)
        if not timedelta(0) <= end - start <= timedelta(days=DAYS_MAX):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as e:
        raise Invalid("option-time", f"since and until are RFC 3339 times, at most {DAYS_MAX} days apart") from e
    return start, end


def days(since: datetime, until: datetime) -> list[str]:
    """The log's days (UTC) of a time."""
    first, last = (t.astimezone(UTC).date() for t in (since, until))
    return [f"{first + timedelta(days=n):%Y%m%d}" for n in range((last - first).days + 1)]


def _told(row: Row) -> dict[str, Any]:
    return {
        "study_uid": row["study_uid"],
        "state": status.state(row).value,
        "last_arrival": row["last_arrival"],
        "first_arrival": row["first_arrival"],
        "sites": sorted(row["sites"] or ()),
        "study": msgspec.Raw(row["answer"].encode()),
    }
