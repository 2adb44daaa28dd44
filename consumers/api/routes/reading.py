"""`GET /reading`: the studies of the caller's sites that wait for a report, and the caller's own drafts. `GET
/studies/{study}/reading`: who is at one, and what was asked.

There is no list of what waits: whether a study does is decided by the newest versions of its reports, which come after
it and by another topic. So the arrivals of some days are gone through; what is reported is remembered for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from consumers.api import queries, status
from consumers.api.current import current
from consumers.api.drafts import Drafts
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.room import Known, Room
from consumers.api.routes.arrivals import days
from consumers.api.routes.lists import JSON, limit_of
from consumers.api.waiting import Standing, in_order, is_to_read, priority_of, standing
from infra import clock
from infra.ports import Row
from schemas.caller import ALL_SITES
from schemas.errors import Invalid, NotFound
from schemas.roles import Permission

DAYS, DAYS_MAX = 7, 31
ORDERED = ("order_id", "priority", "reason", "procedure_text", "body_part", "requester", "referrer_name", "authored")
STUDIES_MAX = 3000
"""Arrivals that one answer looks at; what is older is left to the next days' filter, and the answer says so."""
SIGNED_MAX = 50_000


def add(guard: Guard, room: Room, drafts: Drafts) -> None:
    """Register the route."""
    waiting = _Waiting(room, drafts)
    guard.get(
        "/reading",
        waiting.answer,
        permission=Permission.REPORT_DRAFT,
        action="read-waiting",
        summary="What waits for a report, the most urgent and the longest waiting first; and the caller's drafts",
        tag="Reading",
        parameters={
            "site": "one sending site; without it all of the caller's, or the archive's own",
            "days": f"arrivals of how many days, at most {DAYS_MAX}; {DAYS} without it",
            "modality": "only studies with it",
            "mine": "`1`: only what the caller has claimed or begun to write",
            "limit": "most studies",
        },
        source="sijil.reports",
    )
    guard.get(
        "/studies/{study}/reading",
        waiting.one,
        permission=Permission.REPORT_DRAFT,
        action="read-waiting",
        summary="Who reports a study, what was ordered and asked, and which body parts its series name",
        tag="Reading",
        source="sijil.reports",
    )


class _Waiting:
    def __init__(self, room: Room, drafts: Drafts) -> None:
        self._room, self._drafts = room, drafts
        self._signed: Known[str, bool] = Known(SIGNED_MAX)

    async def answer(self, ask: Ask) -> Answer:
        now = clock.now()
        limit, modality, mine = limit_of(ask), ask.option("modality"), ask.option("mine") == "1"
        sites = self._sites(ask)
        written = {s.study_uid: s for s in await self._drafts.of(ask.caller.actor)}
        span = days(now - timedelta(days=_days(ask) - 1), now)
        arrived = await self._select([queries.by_site_day(site, day) for site in sites for day in span])
        uids = list(dict.fromkeys(r["study_uid"] for rows in reversed(arrived) for r in rows))
        looked = [*written, *(u for u in uids if u not in written and not self._signed.get(u))]
        more = len(looked) > STUDIES_MAX
        found = [rows[0] for rows in await self._select([queries.study_state(u) for u in looked[:STUDIES_MAX]]) if rows]
        found = await current(self._room.views.tables, [r for r in found if r["answer"]])
        found = await self._room.scopes.kept(ask.reach, found)
        found = [r for r in found if r["study_uid"] in written or is_to_read(r, now)]
        if modality:
            found = [r for r in found if modality in (r["modalities"] or ())]
        rows = []
        claims = await self._select([queries.reading(r["study_uid"]) for r in found])
        reports = await self._select([queries.reports_of(r["study_uid"]) for r in found])
        ordered_by = await self._orders(found)
        for study, claimed, versions in zip(found, claims, reports, strict=True):
            uid, stands = study["study_uid"], standing(versions)
            if stands.signed and uid not in written:
                self._signed.put(uid, True)
                continue
            claim = claimed[0] if claimed and claimed[0]["claimed_by"] else None
            if mine and uid not in written and (claim is None or claim["claimed_by"] != ask.caller.actor):
                continue
            row = _told(study, stands, claim, ask.caller.actor, ordered_by.get(uid))
            rows.append(row | ({"draft": written[uid].saved} if uid in written else {}))
        ordered = in_order(rows)
        body = {"sites": sites, "waiting": ordered[:limit], "more": more or len(ordered) > limit}
        keys = {r["study_uid"]: r["patient_key"] or "" for r in found}
        shown = [(r["study_uid"], keys[r["study_uid"]]) for r in ordered[:limit]]
        about = OfSearch({"site": tuple(sites)}, shown)
        return Answer(about=about, content=msgspec.json.encode(body), media_type=JSON)

    async def one(self, ask: Ask) -> Answer:
        """One study."""
        uid = ask.uid("study")
        found, claimed, series = await self._room.views.tables.select_many(
            (queries.study_state(uid), queries.reading(uid), queries.series_of(uid))
        )
        found = await current(self._room.views.tables, [r for r in found if r["answer"]])
        if not found:
            raise NotFound("this study is not in the archive, or not yet searchable")
        claim = claimed[0] if claimed and claimed[0]["claimed_by"] else None
        order = (await self._orders(found)).get(uid)
        body = {
            "study_uid": uid,
            "body_parts": sorted({s["body_part"] for s in series if s["body_part"]}),
            **_claim(claim, ask.caller.actor),
            "priority": priority_of(order),
            **({"order": {n: order[n] or "" for n in ORDERED}} if order else {}),
        }
        about = OfStudy(uid, found[0]["patient_key"] or "")
        return Answer(about=about, content=msgspec.json.encode(body), media_type=JSON)

    async def _orders(self, studies: Sequence[Row]) -> dict[str, Row]:
        """Study UID → the order it was made for, where its site's accession number says which."""
        asked = [(s["study_uid"], site) for s in studies if s["accession"] for site in sorted(s["sites"] or ())]
        by_uid = {s["study_uid"]: s for s in studies}
        answers = await self._select([queries.orders_of(site, by_uid[uid]["accession"]) for uid, site in asked])
        found: dict[str, Row] = {}
        for (uid, _), rows in zip(asked, answers, strict=True):
            # A number that was given twice may be another patient's
            of_them = [r for r in rows if uid == r["study_uid"] or r["patient_key"] == by_uid[uid]["patient_key"]]
            live = [r for r in of_them if r["status"] != "revoked"] or of_them
            if live:
                # Of several orders of one number the one that names the study, else the newest
                found.setdefault(uid, max(live, key=lambda r: (r["study_uid"] == uid, r["authored"] or "")))
        return found

    def _sites(self, ask: Ask) -> list[str]:
        if asked := ask.option("site"):
            return [asked]
        return sorted((ask.reach.sites or ask.caller.sites) - {ALL_SITES}) or [self._room.settings.site]

    async def _select(self, selects: Sequence[Any]) -> list[list[Row]]:
        return await self._room.views.tables.select_many(selects) if selects else []


def _days(ask: Ask) -> int:
    text = ask.option("days") or str(DAYS)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= DAYS_MAX):
        raise Invalid("option-days", f"days must be a number from 1 to {DAYS_MAX}")
    return int(text)


def _told(study: Row, stands: Standing, claim: Row | None, actor: str, order: Row | None) -> dict[str, Any]:
    return {
        "study_uid": study["study_uid"],
        "state": status.state(study).value,
        "sites": sorted(study["sites"] or ()),
        "priority": priority_of(order),
        "waits_since": study["first_arrival"],
        "last_arrival": study["last_arrival"],
        "study": msgspec.Raw(study["answer"].encode()),
        **({"report_id": stands.begun, "report_status": stands.status} if stands.begun else {}),
        **({"reason": order["reason"]} if order and order["reason"] else {}),
        **_claim(claim, actor),
    }


def _claim(claim: Row | None, actor: str) -> dict[str, Any]:
    said = {"claimed_by": claim["claimed_by"], "claimed": claim["since"]} if claim else {}
    return {**said, "mine": claim is not None and claim["claimed_by"] == actor}
