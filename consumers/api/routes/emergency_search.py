"""`GET /emergency/patients`: who somebody is whom nobody here knows, by name, in an emergency that was stated.

As much as tells one patient from another, and no more: name, birth date, sex, the end of their number, when they were
last examined. Their file opens by an emergency of its own (`POST /emergency` with the patient key).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from consumers.api.attributes import Level, find
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.planner import plan
from consumers.api.qido import Condition, Query, condition_of
from consumers.api.room import Room
from consumers.api.routes.lists import JSON
from consumers.api.search import Hit
from consumers.api.walk import Deadline
from schemas.errors import Invalid
from schemas.roles import Permission

PATH = "/emergency/patients"
PATIENTS_MAX = 20
STUDIES_LOOKED_AT = 400
NAME_MIN = 3
"""Characters of a name: fewer would list everybody."""
ID_END = 4
"""Characters of a patient's number that are shown."""
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


def add(guard: Guard, room: Room) -> None:
    """Register the route."""

    async def emergency_patients(ask: Ask) -> Answer:
        query = _query(ask)
        if not await room.scopes.may_look(ask.caller):
            raise Invalid("emergency-not-stated", 'first POST /emergency with {"search": true, "words": "…"}')
        found = await room.views.searcher.search(
            query, plan(query), limit=STUDIES_LOOKED_AT, deadline=Deadline(room.settings.query_deadline_s)
        )
        newest: dict[str, Hit] = {}
        for hit in found.hits:
            if key := hit.study["patient_key"]:
                newest.setdefault(key, hit)
        shown = dict([*newest.items()][:PATIENTS_MAX])
        more = found.more or found.cut or len(newest) > PATIENTS_MAX
        document = {"patients": [_patient(key, hit) for key, hit in shown.items()], "more": more}
        criteria = {c.attribute.keyword: c.values for c in query.conditions}
        about = OfSearch(criteria, [(hit.study["study_uid"], key) for key, hit in shown.items()])
        return Answer(about=about, content=msgspec.json.encode(document), media_type=JSON)

    guard.get(
        PATH,
        emergency_patients,
        permission=Permission.ACCESS_EMERGENCY,
        action="emergency-search",
        purpose="ETREAT",
        summary="Find a patient by name in an emergency that was stated for this",
        description="Every patient who is shown sees it in their trail, and the data protection officer sees the"
        f" statement. At most {PATIENTS_MAX}; `more` says that others fit.",
        tag="Who",
        parameters={
            "name": f"the beginnings of the name's words, in any order and spelling; at least {NAME_MIN} characters",
            "birth_date": "YYYY-MM-DD",
            "id": "the whole number, for example the national ID",
        },
    )


def _query(ask: Ask) -> Query:
    """Raises Invalid(`emergency-…`, `value-…`)."""
    name, born, number = (ask.option(n).strip() for n in ("name", "birth_date", "id"))
    if born and not _DAY.match(born):
        raise Invalid("emergency-birth-date", "birth_date is YYYY-MM-DD")
    if any(c in "*?" for c in name + number) or (name and len(name) < NAME_MIN) or not (name or number):
        raise Invalid("emergency-whom", f"say whom: a name of {NAME_MIN} characters or more, or an id, no wild cards")
    asked = (("PatientName", name), ("PatientID", number), ("PatientBirthDate", born.replace("-", "")))
    conditions: list[Condition | None] = [condition_of(find(k), v) for k, v in asked if v]
    return Query(Level.STUDY, tuple(c for c in conditions if c is not None), fuzzy=bool(name))


def _patient(key: str, hit: Hit) -> dict[str, Any]:
    answer = msgspec.json.decode(hit.study["answer"])

    def value(tag: str) -> Any:
        return next((v for v in answer.get(tag, {}).get("Value", ()) if v), None)

    number = str(value("00100020") or "")
    return {
        "patient_key": key,
        "name": value("00100010") or {},
        "birth_date": value("00100030") or "",
        "sex": value("00100040") or "",
        "id_end": number[-ID_END:] if len(number) > ID_END else "",
        "last_examined": value("00080020") or "",
        "modalities": answer.get("00080061", {}).get("Value", []),
    }
