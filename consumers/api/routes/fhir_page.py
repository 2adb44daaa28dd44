"""What the FHIR routes share: addresses, pages of searches, and what stands beside the matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from consumers.api import queries
from consumers.api.fhir_files import Files
from consumers.api.fhir_query import (
    COUNT,
    COUNT_MAX,
    INCLUDES,
    PARAMETERS,
    REVINCLUDES,
    SORTS,
    Asked,
    is_lenient,
    parse,
)
from consumers.api.guard import Answer, Ask, OfSearch, OfStudy
from consumers.api.room import Room
from consumers.fhir.bundle import searchset, subset
from consumers.fhir.codes import MEDIA_TYPE, Resource
from infra.ports import Row
from schemas.roles import Permission, Scope, scope_of

PATHS = "/fhir"
NEEDED: Mapping[str, Permission] = {
    "Patient": Permission.PATIENT_FILE,
    "ImagingStudy": Permission.STUDY_READ,
    "DiagnosticReport": Permission.REPORT_READ,
    "ServiceRequest": Permission.ORDER_READ,
    "Endpoint": Permission.STUDY_READ,
}
"""What it takes to be shown a resource beside others."""


def base_of(room: Room, ask: Ask) -> str:
    """URL of the FHIR door as the client sees it."""
    return room.base(ask).removesuffix("/dicom-web") + PATHS


def asked_of(ask: Ask, resource: str) -> Asked:
    """The search. Raises Invalid."""
    return parse(resource, ask.all_options(), lenient=is_lenient(ask.header("prefer")))


def parameters(resource: str) -> dict[str, str]:
    """Query parameters as the door's description has them."""
    found = {name: f"{kind}: {about}" for name, (kind, about) in PARAMETERS[resource].items()}
    found["_count"] = f"resources of a page, at most {COUNT_MAX}; {COUNT} without it"
    found["_page"] = "where a page goes on: see the link `next`"
    if INCLUDES[resource]:
        found["_include"] = "what to bring along: " + ", ".join(f"{resource}:{n}" for n in INCLUDES[resource])
    if resource in REVINCLUDES:
        found["_revinclude"] = "what refers to it, to bring along: " + ", ".join(REVINCLUDES[resource])
    if SORTS[resource]:
        found["_sort"] = "where the result is known whole: " + ", ".join(f"{n}, -{n}" for n in SORTS[resource])
    found["_summary"] = "count: how many there are, and nothing else"
    found["_elements"] = "which elements of the matches to show, and what a resource must have"
    return found


async def included(
    files: Files, room: Room, ask: Ask, asked: Asked, *, patients: Sequence[str], study_uids: Sequence[str] = ()
) -> tuple[list[Resource], list[str]]:
    """What `_include` brings, and in words what it does not: whoever may not see a kind of resource is not shown it."""
    found: list[Resource] = []
    notes: list[str] = []
    for kind in sorted(asked.include):
        if scope_of(ask.caller.role, NEEDED[kind]) is Scope.NONE:
            notes.append(f"{kind} is not included: the role {ask.caller.role} may not {NEEDED[kind]}")
        elif kind == "Patient":
            groups = await room.scopes.linked.groups(patients)
            found += await files.patients(g.key for g in groups.values())
        elif kind == "Endpoint":
            found.append(files.endpoint(room.base(ask)))
        elif kind == "ServiceRequest":
            uids = list(dict.fromkeys(study_uids))
            of_studies = await room.views.tables.select_many([queries.orders_of_study(u) for u in uids])
            ids = dict.fromkeys(r["order_id"] for rows in of_studies for r in rows)
            newest = await room.views.tables.select_many([queries.newest_order(i) for i in ids])
            found += await files.orders([rows[0] for rows in newest if rows])
        elif kind == "ImagingStudy":
            found += await files.studies(await files.whole(list(dict.fromkeys(study_uids))))
    return found, notes


async def referring(
    files: Files, room: Room, ask: Ask, asked: Asked, *, study_uids: Sequence[str] = (), orders: Sequence[Row] = ()
) -> tuple[list[Resource], list[tuple[str, str]], list[str]]:
    """What `_revinclude` brings, the (study, patient key) pairs that it shows, and in words what it does not:
    reports of studies and studies of orders, those within the caller's reach.
    """
    found: list[Resource] = []
    pairs: list[tuple[str, str]] = []
    notes: list[str] = []
    for kind in sorted(asked.revinclude):
        if scope_of(ask.caller.role, NEEDED[kind]) is Scope.NONE:
            notes.append(f"{kind} is not included: the role {ask.caller.role} may not {NEEDED[kind]}")
        elif kind == "DiagnosticReport":
            listed = await room.views.tables.select_many([queries.reports_of(u) for u in study_uids])
            ids = dict.fromkeys(r["report_id"] for rows in listed for r in rows)
            newest = await room.views.tables.select_many([queries.newest_report(i) for i in ids])
            rows = [r[0] for r in newest if r]
            about = [{"study_uid": u, "patient_key": ""} for r in rows for u in r["study_uids"] or ()]
            seen = {r["study_uid"] for r in await room.scopes.kept(ask.reach, about)}
            for resource, shown in await files.reports([r for r in rows if seen.issuperset(r["study_uids"] or ())]):
                found.append(resource)
                pairs += shown
        else:
            uids = list(dict.fromkeys(r["study_uid"] for r in orders if r["study_uid"]))
            whole = await room.scopes.kept(ask.reach, await files.whole(uids))
            found += await files.studies(whole)
            pairs += [(r["study_uid"], r["patient_key"] or "") for r in whole]
    return found, pairs, notes


def page(
    ask: Ask,
    base: str,
    asked: Asked,
    matches: Sequence[Resource],
    about: OfSearch,
    *,
    beside: Sequence[Resource] = (),
    next: str = "",
    notes: Sequence[str] = (),
    total: int | None = None,
) -> Answer:
    """A page of a search; its links say what was looked for, without what was left out. `total`: where it is known."""
    pairs = [(n, v) for n, v in ask.all_options() if n != "_page" and (n, v) not in asked.left_out]
    if asked.left_out:
        names = ", ".join(sorted({n for n, _ in asked.left_out}))
        notes = [*notes, f"left out, for it is not known here: {names}"]
    here = f"{base}/{asked.resource}"
    self_url = f"{here}?{urlencode(pairs)}" if pairs else here
    next_url = f"{here}?{urlencode([*pairs, ('_page', next)])}" if next else ""
    shown = [subset(m, asked.elements) for m in matches] if asked.elements else matches
    found = searchset(shown, beside, base=base, here=self_url, next=next_url, notes=notes, total=total)
    return fhir(about, found)


def counted(ask: Ask, base: str, asked: Asked, total: int, notes: Sequence[str] = ()) -> Answer:
    """How many there are. It shows nothing of anybody; that it was asked for is recorded."""
    return page(ask, base, asked, [], OfSearch(criteria(asked), []), notes=notes, total=total)


def criteria(asked: Asked) -> Mapping[str, Sequence[str]]:
    """What was asked for, as the access event has it: names, and HMACs of the values."""
    return dict(asked.values)


def fhir(about: OfStudy | OfSearch, document: Any, version: int | None = None) -> Answer:
    """A resource; `version`: of its ETag."""
    headers = {"ETag": f'W/"{version}"'} if version is not None else {}
    return Answer(about=about, content=msgspec.json.encode(document), media_type=MEDIA_TYPE, headers=headers)
