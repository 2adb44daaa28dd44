"""`GET /reading`: the studies of the caller's sites that wait for a report, and the caller's own drafts. `GET
/studies/{study}/reading`: who is at one, and what was asked.

What waits is a list of the read models (`reading_waiting`), the most urgent first: a page reads no more of it than it
shows. What it says was decided when something last came; a page looks once more at each study it shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from consumers.api import queries, status
from consumers.api.beside import person_at
from consumers.api.current import current
from consumers.api.drafts import Drafts
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.packs import Packs
from consumers.api.room import Known, Room
from consumers.api.routes.lists import JSON, limit_of
from infra import clock
from infra.ports import Row
from schemas.caller import ALL_SITES
from schemas.dose_report import XRAY_DOSE, read
from schemas.dose_report import of_study as dose_of_study
from schemas.errors import Defect, Invalid, NotFound, Permanent
from schemas.lifecycle import ORDER_CANCELLED
from schemas.people import names
from schemas.report_content import Dose, person_of
from schemas.roles import Permission
from schemas.to_read import ANY, PRIORITIES, Standing, priority_of, standing

MONTHS: Final = 13
"""Months of arrival that are listed. What has waited for more than a year waits for no report."""
SAME_MAX: Final = 200
"""Studies of a site that came in the same millisecond."""
NAMES_MAX: Final = 5000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

ORDERED = ("order_id", "priority", "reason", "procedure_text", "body_part", "requester", "referrer_name", "authored")
DOSE_SERIES_MAX, DOSE_REPORTS_MAX = 16, 64


def add(guard: Guard, room: Room, drafts: Drafts, packs: Packs) -> None:
    """Register the route."""
    waiting = _Waiting(room, drafts, packs)
    guard.get(
        "/reading",
        waiting.answer,
        permission=Permission.REPORT_DRAFT,
        action="read-waiting",
        summary="What waits for a report, the most urgent and the longest in the archive first; the caller's drafts",
        description="`why`: new-images (it has a report that does not speak of them) or taken-back. `next`: where the"
        " next page begins; a page may be shorter than asked for.",
        tag="Reading",
        parameters={
            "site": "one sending site; without it all of the caller's, or the archive's own",
            "modality": "only studies with it",
            "priority": f"only of one: {', '.join(PRIORITIES)}",
            "mine": "`1`: only what the caller has claimed or begun to write",
            "limit": "most studies, the caller's drafts beside them",
            "after": "`next` of the page before",
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
    def __init__(self, room: Room, drafts: Drafts, packs: Packs) -> None:
        self._room, self._drafts, self._packs = room, drafts, packs
        self._names: Known[str, list[str]] = Known(NAMES_MAX)

    async def answer(self, ask: Ask) -> Answer:
        limit, mine, after = limit_of(ask), ask.option("mine") == "1", _place(ask.option("after"))
        wanted = {"modality": ask.option("modality"), "priority": ask.option("priority")}
        if wanted["priority"] not in ("", *PRIORITIES):
            raise Invalid("option-priority", f"priority must be one of {', '.join(PRIORITIES)}")
        sites = self._sites(ask)
        written = {s.study_uid: s for s in await self._drafts.of(ask.caller.actor)}
        listed: list[Row] = []
        following = ""
        if mine:
            claimed = await self._room.views.tables.select(queries.claimed_by(ask.caller.actor))
            listed = [{"study_uid": r["study_uid"]} for r in claimed]
        else:
            listed, following = await self._listed(sites, wanted, after, limit)
        first = [] if after else [{"study_uid": u} for u in written]
        places = {r["study_uid"]: r for r in (*first, *(r for r in listed if r["study_uid"] not in written))}
        rows, shown = await self._rows(ask, places, frozenset(written))
        rows = [r | ({"draft": written[r["study_uid"]].saved} if r["study_uid"] in written else {}) for r in rows]
        if mine:
            rows = [r for r in rows if r["mine"] or "draft" in r]
        rows = [r for r in rows if wanted["priority"] in ("", r["priority"])]
        if wanted["modality"]:
            rows = [r for r in rows if wanted["modality"] in r["modalities"]]
        rows.sort(key=lambda r: (PRIORITIES.index(r["priority"]), r["arrived"], r["study_uid"]))
        body = {"sites": sites, "waiting": rows, "next": following, "more": bool(following)}
        about = OfSearch({"site": tuple(sites)}, [(r["study_uid"], shown[r["study_uid"]]) for r in rows])
        return Answer(about=about, content=msgspec.json.encode(body), media_type=JSON)

    async def _listed(
        self, sites: Sequence[str], wanted: Mapping[str, str], after: tuple[int, int, str] | None, limit: int
    ) -> tuple[list[Row], str]:
        """Rows of a page behind `after`, and the place of its last one where there are more."""
        ranks = [PRIORITIES.index(wanted["priority"])] if wanted["priority"] else list(range(len(PRIORITIES)))
        places = [(site, wanted["modality"] or ANY, month) for site in sites for month in _months(clock.now())]
        found: dict[tuple[int, int, str], Row] = {}
        for rank in ranks:
            if after and rank < after[0]:
                continue
            since = _EPOCH + timedelta(milliseconds=after[1]) if after and rank == after[0] else None
            # An instant may have several studies, of which some were on the page before
            most = limit + 1 + (SAME_MAX if since else 0)
            answers = await self._room.views.tables.select_many(
                [queries.waiting(*place, rank, since, most) for place in places]
            )
            for row in (r for rows in answers for r in rows):
                at = (rank, _ms(row["first_arrival"]), row["study_uid"])
                if not after or at > after:
                    found[at] = row
            if len(found) > limit:
                break
        page = sorted(found)[:limit]
        return [found[at] for at in page], _told_place(page[-1]) if len(found) > len(page) else ""

    async def _rows(
        self, ask: Ask, places: Mapping[str, Row], written: frozenset[str]
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """The studies as they are now, those that wait no longer left out; and whose they are."""
        tables = self._room.views.tables
        found = [rows[0] for rows in await self._select([queries.study_state(u) for u in places]) if rows]
        found = await current(tables, [r for r in found if r["answer"]])
        found = await self._room.scopes.kept(ask.reach, found)
        claims = await self._select([queries.reading(r["study_uid"]) for r in found])
        reports = await self._select([queries.reports_of(r["study_uid"]) for r in found])
        orders = await self._orders(found)
        claimers = {c[0]["claimed_by"] for c in claims if c} - {None, "", ask.caller.actor}
        known = dict(zip(sorted(claimers), await self._named(sorted(claimers)), strict=True))
        rows: list[dict[str, Any]] = []
        for study, claimed, versions in zip(found, claims, reports, strict=True):
            uid, stands, place = study["study_uid"], standing(versions), places[study["study_uid"]]
            if stands.signed and uid not in written and not place.get("why"):
                continue
            claim = claimed[0] if claimed and claimed[0]["claimed_by"] else None
            told = _told(study, stands, place, claim, ask.caller.actor, orders.get(uid))
            rows.append(told | ({"claimed_names": known.get(claim["claimed_by"], [])} if claim else {}))
        return rows, {r["study_uid"]: r["patient_key"] or "" for r in found}

    async def _named(self, actors: Sequence[str]) -> list[list[str]]:
        """The names of staff as they are written; none of whom the archive does not know."""

        async def of(rows: Sequence[Row]) -> list[str]:
            if not rows or not rows[0]["document_key"]:
                return []
            version = rows[0]["document_sha256"]
            found = self._names.get(version)
            if found is None:
                try:
                    found = names(await asyncio.to_thread(person_at, self._room.objects, rows[0]))
                except (Permanent, Defect):  # the list is worth more than a name in it
                    found = []
                self._names.put(version, found)
            return found

        staff = [person_of(actor) for actor in actors]
        answers = dict(
            zip((p for p in staff if p), await self._select([queries.person(p) for p in staff if p]), strict=True)
        )
        return list(await asyncio.gather(*(of(answers.get(p, ())) for p in staff)))

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
        who = await self._named([claim["claimed_by"]]) if claim else [[]]
        order = (await self._orders(found)).get(uid)
        body = {
            "study_uid": uid,
            "body_parts": sorted({s["body_part"] for s in series if s["body_part"]}),
            **_claim(claim, ask.caller.actor),
            **({"claimed_names": who[0]} if claim else {}),
            "priority": priority_of(order["priority"] if order else ""),
            **({"order": {n: order[n] or "" for n in ORDERED}} if order else {}),
            "dose": await self._dose(found[0], series),
        }
        about = OfStudy(uid, found[0]["patient_key"] or "")
        return Answer(about=about, content=msgspec.json.encode(body), media_type=JSON)

    async def _dose(self, study: Row, series: Sequence[Row]) -> list[Dose]:
        """What the dose reports among its instances say, as they are served now."""
        if XRAY_DOSE not in (study["sop_classes"] or ()):
            return []
        listed = [s["series_uid"] for s in series if s["modality"] == "SR"][:DOSE_SERIES_MAX]
        headers: list[bytes] = []
        for series_uid in listed:
            with suppress(NotFound):  # rejected, all of it
                _, copies = await self._room.copies(study["study_uid"], series_uid)
                for row in [c for c in copies if c["sop_class"] == XRAY_DOSE][:DOSE_REPORTS_MAX]:
                    manifest = await self._packs.manifest(row["pack_id"])
                    headers.append(bytes(manifest.instances[row["line"]].header))
        return list(dose_of_study([read(msgspec.json.decode(header)) for header in headers]))

    async def _orders(self, studies: Sequence[Row]) -> dict[str, Row]:
        """Study UID → the order it was made for: it gave the study its UID, or has its accession number."""
        expected = await self._select([queries.orders_of_study(s["study_uid"]) for s in studies])
        asked = [(s["study_uid"], row["order_id"]) for s, rows in zip(studies, expected, strict=True) for row in rows]
        answers = await self._select([queries.order(id) for _, id in asked])
        of_study: dict[str, list[Row]] = {}
        for (uid, _), rows in zip(asked, answers, strict=True):
            of_study.setdefault(uid, []).extend(rows)
        # Of several the one that names the study, else the newest
        return {
            uid: max(
                [r for r in rows if r["status"] not in ORDER_CANCELLED] or rows,
                key=lambda r: (r["study_uid"] == uid, r["authored"] or ""),
            )
            for uid, rows in of_study.items()
            if rows
        }

    def _sites(self, ask: Ask) -> list[str]:
        if asked := ask.option("site"):
            return [asked]
        return sorted((ask.reach.sites or ask.caller.sites) - {ALL_SITES}) or [self._room.settings.site]

    async def _select(self, selects: Iterable[Any]) -> list[list[Row]]:
        wanted = list(selects)
        return await self._room.views.tables.select_many(wanted) if wanted else []


def _months(now: datetime) -> list[str]:
    """YYYYMM, the oldest first."""
    last = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1
    return [f"{m // 12:04}{m % 12 + 1:02}" for m in range(last - MONTHS + 1, last + 1)]


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _told_place(place: tuple[int, int, str]) -> str:
    return "_".join(map(str, place))


def _place(text: str) -> tuple[int, int, str] | None:
    """(rank, first arrival, study) that a page follows; None: it is the first. Raises Invalid(`option-after`)."""
    if not text:
        return None
    rank, _, rest = text.partition("_")
    at, _, uid = rest.partition("_")
    if not all(n.isascii() and n.isdigit() and len(n) < 15 for n in (rank, at)) or int(rank) >= len(PRIORITIES):
        raise Invalid("option-after", "after must be `next` of the page before")
    return int(rank), int(at), uid


def _told(study: Row, stands: Standing, place: Row, claim: Row | None, actor: str, order: Row | None) -> dict[str, Any]:
    rank = place.get("rank")
    return {
        "study_uid": study["study_uid"],
        "state": status.state(study).value,
        "sites": sorted(study["sites"] or ()),
        "modalities": sorted(study["modalities"] or ()),
        "priority": PRIORITIES[rank] if rank is not None else priority_of(order["priority"] if order else ""),
        "why": place.get("why") or "",
        "arrived": study["first_arrival"],
        "waits_since": place.get("since") or study["first_arrival"],
        "last_arrival": study["last_arrival"],
        "study": msgspec.Raw(study["answer"].encode()),
        **({"report_id": stands.begun, "report_status": stands.status} if stands.begun else {}),
        **({"reason": order["reason"]} if order and order["reason"] else {}),
        **_claim(claim, actor),
    }


def _claim(claim: Row | None, actor: str) -> dict[str, Any]:
    said = {"claimed_by": claim["claimed_by"], "claimed": claim["since"]} if claim else {}
    return {**said, "mine": claim is not None and claim["claimed_by"] == actor}
