"""QIDO-RS (PS3.18 §10.6): `/studies`, `/series`, `/instances`, and below a study or series.

No match is answered 200 with an empty list, always (in XML, which has no empty list of parts, 204).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from consumers.api import accept, dicomjson
from consumers.api.attributes import Level
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.patient_totals import totals
from consumers.api.planner import explain, plan
from consumers.api.qido import Kind, Query, parse
from consumers.api.room import Room
from consumers.api.scope import Within
from consumers.api.search import Found, Hit
from consumers.api.wado import closing, multipart_type
from consumers.api.walk import Deadline
from infra import clock
from schemas import native_xml
from schemas.dicom_json import Dataset
from schemas.levels import PATIENT_TOTALS, STUDY_TAGS
from schemas.roles import Permission

MORE = '299 sijil "There are more results: ask for them with offset"'
CUT = '299 sijil "The search was stopped at its deadline: narrow it, or go on with cursor"'
CURSOR = "Sijil-Cursor"
"""Where a search that was cut stood: the parameter `cursor` of the one that goes on."""
EXPLAIN = "Sijil-Explain"
"""Asks for the plan of a search, and tells it (setting `query_explain`)."""

_PARAMETERS = {
    "{attribute}": "keyword or 8 hex digits of an attribute, and what it must be: UIDs as a list, dates and times also"
    " as ranges (`20240101-20240131`, `20240101-`), text with wild cards `*` and `?`; names regardless of case and of"
    " Arabic spelling",
    "limit": "most results of this answer",
    "offset": "results to leave out before",
    "includefield": "more attributes: keywords or tags separated by commas, or `all`",
    "fuzzymatching": "`true`: a name also matches when each word begins a word of it or sounds like one, in any order"
    " and in either script",
    "cursor": f"goes on where a search was cut, as its header {CURSOR} says",
}


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""

    async def studies(ask: Ask) -> Answer:
        return await _search(ask, room, Level.STUDY)

    async def series(ask: Ask) -> Answer:
        return await _search(ask, room, Level.SERIES)

    async def instances(ask: Ask) -> Answer:
        return await _search(ask, room, Level.INSTANCE)

    async def series_of_study(ask: Ask) -> Answer:
        return await _search(ask, room, Level.SERIES, ask.uid("study"))

    async def instances_of_study(ask: Ask) -> Answer:
        return await _search(ask, room, Level.INSTANCE, ask.uid("study"))

    async def instances_of_series(ask: Ask) -> Answer:
        return await _search(ask, room, Level.INSTANCE, ask.uid("study"), ask.uid("series"))

    for path, handler, summary in (
        ("/studies", studies, "Search for studies"),
        ("/series", series, "Search for series"),
        ("/instances", instances, "Search for instances"),
        ("/studies/{study}/series", series_of_study, "Search for series of a study"),
        ("/studies/{study}/instances", instances_of_study, "Search for instances of a study"),
        ("/studies/{study}/series/{series}/instances", instances_of_series, "Search for instances of a series"),
    ):
        guard.get(
            f"/dicom-web{path}",
            handler,
            permission=Permission.STUDY_SEARCH,
            action="search",
            summary=summary,
            tag="Search (QIDO-RS)",
            media_types=(*dicomjson.MEDIA_TYPES, dicomjson.XML_PARTS),
            parameters=_PARAMETERS,
        )


async def _search(ask: Ask, room: Room, level: Level, study_uid: str = "", series_uid: str = "") -> Answer:
    media_type = dicomjson.model_type(accept.parse(ask.option("accept") or ask.header("accept")))
    query = parse(ask.query_string, level, study_uid=study_uid, series_uid=series_uid)
    settings = room.settings
    limit = min(query.limit or settings.query_limit_max, settings.query_limit_max)
    deadline = Deadline(settings.query_deadline_s)
    chosen = plan(query)
    within = Within(ask.reach, room.scopes)
    found = await room.views.searcher.search(query, chosen, limit=limit, deadline=deadline, within=within)
    base = room.base(ask)
    counted: Mapping[str, Dataset] = {}
    if query.include & PATIENT_TOTALS and ask.reach.whole:  # a count tells of studies beyond a reach
        keys = (hit.study["patient_key"] for hit in found.hits)
        counted = await totals(room.views.tables, filter(None, keys), deadline)
    if level is Level.STUDY and not chosen.shows_header and not counted:
        datasets = [dicomjson.study_text(hit.study, base) for hit in found.hits]
    else:
        datasets = [
            dicomjson.encode(
                _dataset(hit, query, study_uid, series_uid) | counted.get(hit.study["patient_key"] or "", {}), base
            )
            for hit in found.hits
        ]
    headers = _warnings(found)
    if settings.query_explain and ask.header(EXPLAIN):
        told = explain(query, chosen) | {"partitions_read": found.reads, "rows_read": found.rows}
        headers[EXPLAIN] = json.dumps(told)
    about = _about(query, found, study_uid, series_uid)
    if media_type == native_xml.MEDIA_TYPE:
        boundary = f"sijil-{clock.uuid7()}"
        return Answer(
            about=about,
            content=dicomjson.xml_parts(datasets, boundary) + closing(boundary),
            media_type=multipart_type(boundary, native_xml.MEDIA_TYPE),
            status=200 if datasets else 204,  # a multipart body has a part at least
            headers=headers,
        )
    return Answer(about=about, content=dicomjson.listed(datasets), media_type=media_type, headers=headers)


def _dataset(hit: Hit, query: Query, study_uid: str, series_uid: str) -> Dataset:
    """A result, and of what is above it what the address does not name (PS3.18 §10.6.3.3)."""
    found: Dataset = {}
    if hit.series is None or not study_uid:
        found |= dicomjson.study(hit.study, query)
    elif asked := query.include.intersection(STUDY_TAGS):  # what the address names is shown where it is asked for
        found |= {tag: e for tag, e in dicomjson.study(hit.study, query).items() if tag in asked}
    if hit.series is not None and (hit.instance is None or not series_uid):
        found |= dicomjson.shown(hit.series, dicomjson.SERIES_SHOWN, query)
    elif hit.series is not None:
        found |= {tag: e for tag, e in hit.series.items() if tag in query.include}
    if hit.instance is not None:
        found |= dicomjson.shown(hit.instance, dicomjson.INSTANCE_SHOWN, query)
    return found


def _about(query: Query, found: Found, study_uid: str, series_uid: str) -> OfStudy | OfSearch:
    """A list of what is in one study is a read of that study; anything else is a search."""
    if found.hits and study_uid and len(query.conditions) == (2 if series_uid else 1):
        return OfStudy(study_uid, found.hits[0].study["patient_key"] or "")
    shown = dict.fromkeys((h.study["study_uid"], h.study["patient_key"] or "") for h in found.hits)
    return OfSearch(_criteria(query), list(shown))


def _criteria(query: Query) -> Mapping[str, tuple[str, ...]]:
    return {c.attribute.keyword: ("-".join(c.values),) if c.kind is Kind.RANGE else c.values for c in query.conditions}


def _warnings(found: Found) -> dict[str, str]:
    headers: dict[str, str] = {}
    texts = [text for holds, text in ((found.cut, CUT), (found.more, MORE)) if holds]
    if texts:
        headers["Warning"] = ", ".join(texts)
    if found.cursor[0]:
        headers[CURSOR] = "_".join(found.cursor)
    return headers
