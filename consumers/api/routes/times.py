"""How long things took: of a study, and as percentiles of all that sites sent in a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import msgspec

from consumers.api import queries
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.room import Room
from consumers.api.routes.lists import JSON
from consumers.api.times import Sums, grouping
from infra import clock
from infra.ports import Row, Select
from schemas.errors import Forbidden, Invalid, NotFound
from schemas.roles import Permission
from schemas.times import ERROR, INTERVALS, STEPS, Way, way

DAYS, DAYS_MAX = 7, 366
AT_ONCE = 256
"""Months of sites that are read at once."""
SITES_MAX = 500
PLACES_MAX = 10_000
"""Sites times days of one question."""
REPORTS = "sijil.reports"
BY = "site, modality, priority or hour (of arrival)"


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""
    zone = ZoneInfo(room.settings.time_zone)

    async def of_study(ask: Ask) -> Answer:
        uid = ask.uid("study")
        owner, milestones = await room.with_owner(uid, queries.milestones_of(uid))
        rows = await room.views.tables.select(queries.study_state(uid))
        if not rows:
            raise NotFound("this study is not in the archive, or not yet searchable")
        found = await _way(room, uid, rows[0], milestones)
        body = {
            "study_uid": uid,
            "priority": found.priority,
            "times": {s: found.steps[s].isoformat() for s in STEPS if s in found.steps},
            "seconds": {i: s for i in INTERVALS if (s := found.seconds(i)) is not None},
        }
        return Answer(about=OfStudy(uid, owner), content=msgspec.json.encode(body), media_type=JSON)

    async def of_sites(ask: Ask) -> Answer:
        by = ask.option("by") or "site"
        group = grouping(by, zone)
        if group is None:
            raise Invalid("option-by", f"by must be {BY}")
        first, last = days_of(ask.option("since"), ask.option("until"), clock.now().astimezone(UTC).date())
        known = await _known(room, ask)
        sites = _sites(ask, known)
        if len(sites) * ((last - first).days + 1) > PLACES_MAX:
            raise Invalid("option-day", f"of {len(sites)} sites at most {PLACES_MAX // len(sites)} days")
        sums = Sums(group)
        selects = _times(sites, first, last)
        for start in range(0, len(selects), AT_ONCE):
            answers = await room.views.tables.select_many(selects[start : start + AT_ONCE])
            await asyncio.to_thread(sums.add, [row for rows in answers for row in rows])
        groups = sums.summary()
        body = {
            "by": by,
            "sites": sites,
            "since": f"{first:%Y-%m-%d}",
            "until": f"{last:%Y-%m-%d}",
            "known": known,
            "studies": sum(g["studies"] for g in groups),
            "error": ERROR,
            "groups": groups,
        }
        # Figures, and nobody's: the record says what was asked for
        about = OfSearch({"site": sites}, ())
        return Answer(about=about, content=msgspec.json.encode(body), media_type=JSON)

    guard.get(
        "/studies/{study}/times",
        of_study,
        permission=Permission.REPORT_READ,
        action="read-times",
        summary="When a study was ordered, arrived, was complete, opened, reported, delivered and read",
        tag="Times",
        source=REPORTS,
    )
    guard.get(
        "/times",
        of_sites,
        permission=Permission.TIMES_READ,
        action="read-times",
        summary="How long things took: p50, p90 and p95 in seconds of the studies that sites sent in a time",
        description="A study counts at the site that sent its first pack, on the day and in the hour when that came."
        f" Counts are exact; a percentile (nearest rank) is within {ERROR:.0%} of the exact one (`error`) of however"
        " many studies. An hour is one of UTC, called as the archive's time zone calls its beginning.",
        tag="Times",
        parameters={
            "by": f"{BY}; site without it",
            "site": "a sending site, repeated for more; without it all that the caller may ask for (`known`)",
            "since": f"YYYY-MM-DD (UTC, of arrival); {DAYS - 1} days before `until` without it",
            "until": f"YYYY-MM-DD; today without it; at most {DAYS_MAX} days",
        },
        source=REPORTS,
    )


def days_of(since: str, until: str, today: date) -> tuple[date, date]:
    """First and last day asked for. Raises Invalid(`option-day`)."""
    try:
        last = date.fromisoformat(until) if until else today
        first = date.fromisoformat(since) if since else last - timedelta(days=DAYS - 1)
        if not 0 <= (last - first).days < DAYS_MAX:
            raise ValueError
    except (ValueError, OverflowError) as e:
        raise Invalid("option-day", f"since and until are days (YYYY-MM-DD), at most {DAYS_MAX}") from e
    return first, last


async def _known(room: Room, ask: Ask) -> list[str]:
    """The sites that the caller may ask for: their own, or every one that has sent something."""
    if not ask.reach.whole:
        return sorted(ask.reach.sites) or [room.settings.site]
    rows = await room.views.tables.select(queries.sites(SITES_MAX))
    return [row["site"] for row in rows] or [room.settings.site]


def _sites(ask: Ask, known: Sequence[str]) -> list[str]:
    """The sites asked for. Raises Invalid(`option-site`), Forbidden(`scope`) for one beyond the caller's."""
    asked = list(dict.fromkeys(ask.options("site"))) or list(known)
    if len(asked) > SITES_MAX:
        raise Invalid("option-site", f"at most {SITES_MAX} sites at once")
    if not ask.reach.whole and not ask.reach.sites.issuperset(asked):
        raise Forbidden("scope", "times are of the sites that you work for")
    return asked


def _times(sites: Sequence[str], first: date, last: date) -> list[Select]:
    """The hours of all sites and days: a read for each site and month."""
    months = sorted({f"{first + timedelta(days=n):%Y%m}" for n in range((last - first).days + 1)})
    span = f"{first:%Y%m%d}00", f"{last:%Y%m%d}24"
    return [queries.times_of(site, month, *span) for site in sites for month in months]


async def _way(room: Room, uid: str, study: Row, milestones: Sequence[Row]) -> Way:
    reports = sorted({row["of"] for row in milestones if row["step"] == "final"})
    answers = await room.views.tables.select_many([queries.delivered_of_report(r) for r in reports]) if reports else []
    return way(uid, study, milestones, [d for rows in answers for d in rows])
