"""How long things took: of a study, and as percentiles of what sites sent in a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from consumers.api import queries
from consumers.api.current import current
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.room import Room
from consumers.api.routes.lists import JSON
from consumers.api.times import INTERVALS, STEPS, Way, grouping, summary, way
from consumers.delivery.subscriptions.store import PREFIX
from infra import clock
from infra.ports import Row
from schemas.errors import Forbidden, Invalid, NotFound
from schemas.roles import Permission

DAYS, DAYS_MAX = 7, 92
STUDIES_MAX = 5000
"""Studies that one question is answered from; of more an even sample, by a hash of their UIDs."""
AT_ONCE = 256
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
        found = way(uid, rows[0], (await _with_deliveries(room, [milestones]))[0])
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
        ways, listed = await _ways(room, sites, first, last)
        body = {
            "by": by,
            "sites": sites,
            "since": f"{first:%Y-%m-%d}",
            "until": f"{last:%Y-%m-%d}",
            "known": known,
            "studies": len(ways),
            "listed": listed,
            "more": listed > STUDIES_MAX,
            "groups": summary(ways, group),
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
        description=f"Of more than {STUDIES_MAX} studies (`listed`; `more` says so) from an even sample of that size.",
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


async def _ways(room: Room, sites: list[str], first: date, last: date) -> tuple[list[tuple[str, Way]], int]:
    """(site, way) of what sites sent, and how many studies that was in all."""
    days = [f"{first + timedelta(days=n):%Y%m%d}" for n in range((last - first).days + 1)]
    places = [(site, day) for site in sites for day in days]
    listed: dict[str, tuple[datetime, str]] = {}
    answers = await room.views.tables.select_many([queries.by_site_day(*place) for place in places])
    for (site, _), rows in zip(places, answers, strict=True):
        for row in rows:
            listed[row["study_uid"]] = max(
                listed.get(row["study_uid"], (row["last_arrival"], site)), (row["last_arrival"], site)
            )
    # The newest alone would leave out those that took long
    taken = sorted(listed, key=_shuffled)[:STUDIES_MAX]
    found: list[tuple[str, Way]] = []
    for start in range(0, len(taken), AT_ONCE):
        uids = taken[start : start + AT_ONCE]
        selects = [queries.study_state(u) for u in uids] + [queries.milestones_of(u) for u in uids]
        both = await room.views.tables.select_many(selects)
        studies = await current(room.views.tables, [rows[0] for rows in both[: len(uids)] if rows])
        steps = dict(zip(uids, await _with_deliveries(room, both[len(uids) :]), strict=True))
        found += [(listed[s["study_uid"]][1], way(s["study_uid"], s, steps[s["study_uid"]])) for s in studies]
    return found, len(listed)


def _shuffled(study_uid: str) -> bytes:
    """A place that says nothing of a study but is always the same: who asks twice gets the same sample."""
    return hashlib.blake2b(study_uid.encode(), digest_size=8).digest()


async def _with_deliveries(room: Room, milestones: Sequence[list[Row]]) -> list[list[Row]]:
    """Milestones of studies, and when the reports that are among them were delivered."""
    reports = sorted({row["of"] for rows in milestones for row in rows if row["step"] == "final"})
    answers = await room.views.tables.select_many([queries.delivered(r) for r in reports]) if reports else []
    told = {
        report: [
            {"step": "delivered", "at": datetime.fromisoformat(d["occurred"]), "kind": ""}
            for d in deliveries
            if not d["destination"].startswith(PREFIX)  # a notification has no report in it
        ]
        for report, deliveries in zip(reports, answers, strict=True)
    }
    return [rows + [d for of in {r["of"] for r in rows} for d in told.get(of, ())] for rows in milestones]
