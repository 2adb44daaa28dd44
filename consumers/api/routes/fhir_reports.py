"""`GET /fhir/DiagnosticReport`: reports in their current versions, and every version by its number."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, timedelta

from consumers.api import queries
from consumers.api.current import current
from consumers.api.fhir_files import Files
from consumers.api.fhir_query import (
    COUNTED_MAX,
    LAST,
    NO_PAGE,
    Asked,
    oid,
    ordered,
    patients_of,
    sliced,
    token,
    uuid_of,
    within,
)
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.room import Room
from consumers.api.routes.fhir_page import asked_of, base_of, counted, criteria, fhir, included, page, parameters
from consumers.api.trail import buckets
from consumers.api.walk import Deadline, Partition, Reader, merged
from consumers.fhir.codes import MEDIA_TYPE
from infra import clock
from infra.ports import Row, Select
from schemas.errors import Invalid, NotFound
from schemas.identity import check_uid
from schemas.roles import Permission

STUDIES_MAX = 500
"""Studies of a patient whose reports are looked for."""
DAYS_BACK = timedelta(days=31)
"""How far a search without `_lastUpdated`, patient and study looks back."""
DAYS_MAX = timedelta(days=366)
"""Days that one search looks at, the newest ones."""
CUT = "the search was stopped: narrow it by _lastUpdated, patient or study"

_PAGE = re.compile(r"([0-9TZ:.+-]{10,40})_([0-9a-f-]{36})\Z")


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""
    files = Files(room)

    async def find_reports(ask: Ask) -> Answer:
        asked = asked_of(ask, "DiagnosticReport")
        finding, total = _Finding(room, files, ask, asked), None
        known = await finding.whole()
        if asked.counted:
            count = len(known) if known is not None else await finding.count()
            return counted(ask, base_of(room, ask), asked, count, finding.notes)
        if known is None:
            rows, more = await finding.page()
        else:
            by = "moment" if asked.sort.endswith("_lastUpdated") else "issued"
            sort = asked if asked.sort else replace(asked, sort="-issued")
            shown, more = sliced(asked, ordered(sort, known, lambda r: (r[by] or "", r["report_id"])))
            rows = list(shown)
            total = None if finding.notes else len(known)
        found = await files.reports(rows)
        pairs = list(dict.fromkeys(p for _, shown in found for p in shown))
        keys, uids = [k for _, k in pairs if k], [u for u, _ in pairs]
        beside, left_out = await included(files, room, ask, asked, patients=keys, study_uids=uids)
        about = OfSearch(criteria(asked), pairs)
        matches, notes = [resource for resource, _ in found], [*finding.notes, *left_out]
        base = base_of(room, ask)
        return page(ask, base, asked, matches, about, beside=beside, next=more, notes=notes, total=total)

    async def report(ask: Ask) -> Answer:
        return await _one(queries.report(uuid_of(ask.part("report"), "report")))

    async def report_version(ask: Ask) -> Answer:
        number = ask.part("version")
        if not (number.isascii() and number.isdigit() and 0 < int(number) < 1 << 31):
            raise Invalid("report-version", "versions are numbers from 1")
        return await _one(queries.report_version(uuid_of(ask.part("report"), "report"), int(number)))

    async def _one(select: Select) -> Answer:
        rows = await room.views.tables.select(select)
        if not rows:
            raise NotFound("this report is not in the archive, or not yet searchable")
        ((found, pairs),) = await files.reports(rows[:1])
        about = OfStudy(*pairs[0]) if len(pairs) == 1 else OfSearch({"report_id": (rows[0]["report_id"],)}, pairs)
        return fhir(about, found, rows[0]["version"])

    guard.get(
        "/fhir/DiagnosticReport",
        find_reports,
        permission=Permission.REPORT_READ,
        action="read-report",
        summary="Reports as FHIR R4 in their current versions, newest first",
        description=f"By patient, study or id; else by `_lastUpdated`, the last {DAYS_BACK.days} days without it.",
        tag="FHIR",
        media_types=(MEDIA_TYPE,),
        parameters=parameters("DiagnosticReport"),
        source="sijil.reports",
    )
    for path, handler, summary in (
        ("/fhir/DiagnosticReport/{report}", report, "A report as FHIR R4 in its current version"),
        ("/fhir/DiagnosticReport/{report}/_history/{version}", report_version, "A version of a report as FHIR R4"),
    ):
        guard.get(
            path,
            handler,
            permission=Permission.REPORT_READ,
            action="read-report",
            summary=summary,
            tag="FHIR",
            media_types=(MEDIA_TYPE,),
            source="sijil.reports",
        )


class _Finding:
    """One search: candidates in order, of which those that fit are kept until the page is full."""

    def __init__(self, room: Room, files: Files, ask: Ask, asked: Asked) -> None:
        self._room, self._files, self._ask, self._asked = room, files, ask, asked
        self._deadline = Deadline(room.settings.query_deadline_s)
        self._statuses, self._issued = asked.any_of("status"), asked.span("issued")
        self._updated = asked.span("_lastUpdated")
        self._behind: tuple[str, str] | None = None

    @property
    def notes(self) -> list[str]:
        """What to say of what was not looked at."""
        return [CUT] if self._deadline.passed else []

    async def whole(self) -> list[Row] | None:
        """Rows of `reports` of all that fit, where it is said whose or which; None where it is not."""
        asked = self._asked
        ids = [uuid_of(i, "report") for i in asked.one("_id").split(",") if i]
        if identifier := asked.one("identifier"):
            id = uuid_of(token(identifier)[1].removeprefix("urn:uuid:"), "report")
            ids = [id] if id in ids or not ids else []
        of_studies = "patient" in asked.values or "study" in asked.values
        if not of_studies and not asked.one("_id") and not identifier:
            return None
        studies = await self._studies() if of_studies else []
        if asked.one("_id") or identifier:
            rows = await self._named(ids)
            rows = [r for r in rows if not of_studies or not set(studies).isdisjoint(r["study_uids"] or ())]
        else:
            rows = await self._of_studies(studies)
        updated, zone = self._updated, self._files.zone
        return [r for r in rows if within(updated, r["moment"] or "", zone) and await self._fits(r)]

    async def page(self) -> tuple[list[Row], str]:
        """(rows of `reports` that reached the archive lately, where the next page begins)."""
        self._behind = _cursor(self._asked.page)
        kept: list[Row] = []
        last = ""
        async for moment, row in self._by_day():
            if not await self._fits(row):
                continue
            if len(kept) == self._asked.count:
                self._deadline.passed = False
                return kept, last
            kept.append(row)
            last = f"{moment}_{row['report_id']}"
        return kept, ""

    async def count(self) -> int:
        """How many there are of these. Raises Invalid(`search-too-wide`)."""
        found = 0
        async for _, row in self._by_day():
            found += await self._fits(row)
            if found > COUNTED_MAX:
                break
        if found > COUNTED_MAX or self._deadline.passed:
            raise Invalid("search-too-wide", f"there are more than {COUNTED_MAX}, or it takes too long: narrow it")
        return found

    async def _fits(self, row: Row) -> bool:
        if self._statuses and row["status"] not in self._statuses:
            return False
        if not within(self._issued, row["issued"], self._files.zone):
            return False
        shown = [{"study_uid": u, "patient_key": ""} for u in row["study_uids"] or ()]
        return len(await self._room.scopes.kept(self._ask.reach, shown)) == len(shown)

    async def _named(self, ids: Sequence[str]) -> list[Row]:
        answers = await self._room.views.tables.select_many([queries.newest_report(i) for i in dict.fromkeys(ids)])
        return [rows[0] for rows in answers if rows]

    async def _of_studies(self, study_uids: Sequence[str]) -> list[Row]:
        answers = await self._room.views.tables.select_many([queries.reports_of(u) for u in study_uids])
        return await self._named([r["report_id"] for rows in answers for r in rows])

    async def _studies(self) -> list[str]:
        asked = self._asked
        if study := asked.one("study"):
            uid = oid(study).rpartition("/")[2]
            check_uid(uid)
            return [uid] if "patient" not in asked.values or await self._is_theirs(uid) else []
        key, identifier = patients_of(asked.values["patient"])
        number = token(identifier)[1]
        keys = (await self._files.group(key)).keys if key else ()
        parts = [Partition(queries.by_patient(k)) for k in keys] or [Partition(queries.by_patient_id(number))]
        tables = self._room.views.tables
        found: list[str] = []
        async for chunk in merged(Reader(tables), parts, self._deadline):
            # One that was reassigned is here under its old and under its new patient.
            for row in await current(tables, chunk):
                if row["patient_key"] in keys if keys else row.get("patient_id", number) == number:
                    found.append(row["study_uid"])
            if len(found) >= STUDIES_MAX:
                self._deadline.passed = True
                break
        return list(dict.fromkeys(found))[:STUDIES_MAX]

    async def _is_theirs(self, study_uid: str) -> bool:
        """Whether a study is of the patient who is asked about."""
        key, identifier = patients_of(self._asked.values["patient"])
        rows = await self._files.whole([study_uid])
        keys = (await self._files.group(key)).keys if key else ()
        number = token(identifier)[1]
        return any(r["patient_key"] in keys if keys else r.get("patient_id") == number for r in rows)

    async def _by_day(self) -> AsyncIterator[tuple[str, Row]]:
        now = clock.now()
        end = min(self._updated.end if self._updated else LAST, now + timedelta(hours=1))
        first = self._updated.first if self._updated else now - DAYS_BACK
        if first < end - DAYS_MAX:
            first, self._deadline.passed = end - DAYS_MAX, True
        seen: set[str] = set()
        for day in buckets(first.astimezone(UTC), end.astimezone(UTC), "day") if first < end else ():
            if self._behind is not None and day > self._behind[0][:10].replace("-", ""):
                continue
            async for chunk in merged(
                Reader(self._room.views.tables), [Partition(queries.reports_of_day(day))], self._deadline
            ):
                fresh = [r for r in chunk if r["report_id"] not in seen and self._goes_on(r)]
                current = {r["report_id"]: r for r in await self._named([r["report_id"] for r in fresh])}
                for row in fresh:
                    # Of a report that was issued again the day of its last version counts.
                    if row["version"] == current[row["report_id"]]["version"] and self._holds(row["moment"]):
                        seen.add(row["report_id"])
                        yield row["moment"], current[row["report_id"]]
            if self._deadline.over():
                return

    def _goes_on(self, row: Row) -> bool:
        if self._behind is None:
            return True
        moment, report_id = self._behind  # newest first, of one moment by their ids
        behind: bool = row["moment"] < moment or (row["moment"] == moment and row["report_id"] > report_id)
        return behind

    def _holds(self, moment: str) -> bool:
        return self._updated is None or self._updated.holds(moment)


def _cursor(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    found = _PAGE.match(text.replace(" ", "+"))
    if not found:
        raise Invalid("option-page", NO_PAGE)
    return found[1], found[2]
