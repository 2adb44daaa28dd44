"""Carrying out a search: the Plan's rows, filtered by the Query, to the page asked for.

Answers are in a stable order: of studies by the list they are read from (newest first, then by UID), of series and
instances by UID within their study. A walk that passes its deadline stops with what it has, says so and says where it
stood.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from consumers.api import dicomjson, match, overlay, queries
from consumers.api.attributes import Level
from consumers.api.calendar import Calendar
from consumers.api.current import current
from consumers.api.planner import ByAccession, ByDay, ByName, ByPatientID, ByReach, BySop, ByUid, Plan
from consumers.api.qido import Kind, Query
from consumers.api.scope import Within
from consumers.api.walk import FIRST_PAGE, NEXT_PAGE, Deadline, Group, Partition, Reader, merged, walked
from infra.ports import Row, Select, Tables
from schemas.dicom_json import Dataset
from schemas.names import Part
from schemas.sounds import shards_of

TOKENS_MAX = 100
"""Words that are followed one by one; above, a pattern's matches are dense enough among the days."""
STUDIES_AT_ONCE = 16
"""Studies whose series or instances are read at once."""
PAGE_MIN = 16


@dataclass(frozen=True)
class Hit:
    """What was found, with what is above it: the row of its study, the datasets of its series and instance."""

    study: Row
    series: Dataset | None = None
    instance: Dataset | None = None


@dataclass
class Found:
    """A page of hits."""

    hits: list[Hit] = field(default_factory=list)
    more: bool = False
    """Others exist behind it."""
    cut: bool = False
    """The deadline passed before all could be looked at."""
    cursor: tuple[str, str] = ("", "")
    """(moment, study UID) of the last study looked at, of a search that was cut."""
    reads: int = 0
    rows: int = 0


class Searcher:
    """Searches of one keyspace of read models."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def search(
        self, query: Query, plan: Plan, *, limit: int, deadline: Deadline, within: Within | None = None
    ) -> Found:
        """The page of `query.offset` and `limit`, of what is within a reach; None: the whole archive."""
        run = _Run(self._tables, query, plan, deadline, limit, within)
        found = Found()
        async with aclosing(run.hits()) as chunks:
            async for hits in chunks:
                hits = hits[run.drop(len(hits)) :]
                room = limit - len(found.hits)
                found.hits += hits[:room]
                if len(hits) > room:
                    found.more = True
                    break
        found.cut = deadline.passed
        if found.cut:
            found.cursor = run.last
        found.reads, found.rows = run.reader.reads, run.reader.rows
        return found

    async def each(
        self, query: Query, plan: Plan, *, deadline: Deadline, within: Within | None = None
    ) -> AsyncIterator[list[Hit]]:
        """All hits from `query.offset` on, in pieces as they are found."""
        run = _Run(self._tables, query, plan, deadline, FIRST_PAGE, within)
        async with aclosing(run.hits()) as chunks:
            async for hits in chunks:
                yield hits[run.drop(len(hits)) :]


class _Run:
    """One search."""

    def __init__(
        self, tables: Tables, query: Query, plan: Plan, deadline: Deadline, limit: int, within: Within | None
    ) -> None:
        if within is not None:
            plan = within.plan(plan)
        self._within = within
        self.reader = Reader(tables)
        self.last: tuple[str, str] = query.cursor
        self._query, self._plan, self._deadline = query, plan, deadline
        self._skip = query.offset
        self._limit = limit

    def drop(self, count: int) -> int:
        """How many of so many hits the offset leaves out."""
        dropped = min(self._skip, count)
        self._skip -= dropped
        return dropped

    def hits(self) -> AsyncGenerator[list[Hit], None]:
        """Chunks of what fits."""
        match self._query.level:
            case Level.STUDY:
                return self._study_hits()
            case Level.SERIES:
                return self._series_hits()
            case Level.INSTANCE:
                return self._instance_hits()

    async def _study_hits(self) -> AsyncGenerator[list[Hit], None]:
        async for rows in self._studies():
            yield [Hit(row) for row in rows]

    # -------------------------------------------------------------------------------------------- studies

    async def _studies(self) -> AsyncIterator[list[Row]]:
        query, plan = self._query, self._plan
        listed, anywhere = _answer_test(query, plan), _answer_test(query, plan, whole=True)
        seen: set[str] = set()
        async for chunk in self._candidates():
            rows = []
            for row in await current(self.reader, chunk):
                uid = row["study_uid"]
                # One that is corrected may belong in the list no longer.
                fits = anywhere if overlay.LAID in row else listed
                if uid not in seen and fits(row):
                    seen.add(uid)
                    rows.append(row)
            if rows and self._within is not None:
                rows = await self._within.kept(rows)
            if rows and (plan.header_filters or plan.shows_header):
                rows = await self._with_headers(rows)
            if rows:
                yield rows
            if chunk and "moment" in chunk[-1]:
                self.last = (chunk[-1]["moment"], chunk[-1]["study_uid"])

    async def _with_headers(self, rows: Sequence[Row]) -> list[Row]:
        """Those whose headers fit, with them."""
        conditions = self._plan.header_filters
        tests = match.checks_of(conditions, fuzzy=self._query.fuzzy, combined=self._query.combined)
        read = match.reader(conditions)
        found = []
        for at in range(0, len(rows), NEXT_PAGE):
            part = rows[at : at + NEXT_PAGE]
            answers = await self.reader.select_many([queries.study_header(r["study_uid"]) for r in part])
            for row, header in zip(part, answers, strict=True):
                text = overlay.study_header(row, (header[0]["attributes"] if header else None) or "{}")
                if match.fits(read(text), tests):
                    found.append(row | {"attributes": text})
        return found

    async def _candidates(self) -> AsyncIterator[list[Row]]:
        plan = self._plan
        match plan.source:
            case BySop(sop_uids):
                places = await self.reader.select_many([queries.instance_by_uid(u) for u in sop_uids])
                uids = dict.fromkeys(row["study_uid"] for rows in places for row in rows)
                answers = await self.reader.select_many([queries.study(u) for u in uids])
                yield [row for rows in answers for row in rows]
                return
            case ByUid(uids):
                answers = await self.reader.select_many([queries.study(u) for u in uids])
                yield [row for rows in answers for row in rows]
                return
            case ByReach(patients, uids):
                answers = await self.reader.select_many([queries.study(u) for u in uids])
                yield [row for rows in answers for row in rows]
                files = [self._dated(queries.by_patient(key)) for key in patients]
                chunks = merged(self.reader, files, self._deadline)
            case ByAccession(accession):
                chunks = merged(self.reader, [Partition(queries.by_accession(accession))], self._deadline)
            case ByPatientID(patient_id):
                chunks = merged(self.reader, [self._dated(queries.by_patient_id(patient_id))], self._deadline)
            case ByName() as name:
                tokens = await self._tokens(name)
                chunks = self._walked(self._days() if tokens is None else self._months(tokens))
            case ByDay():
                chunks = self._walked(self._days())
        async for chunk in chunks:
            yield self._behind_cursor(chunk)

    def _walked(self, groups: AsyncIterator[Group]) -> AsyncIterator[list[Row]]:
        skip = 0 if self._plan.counted else self._skip
        return walked(self.reader, groups, self._deadline, skip + self._limit + 1)

    def _wanted(self) -> int:
        """Rows that fill the page if all fit, and one that tells that there are more."""
        return self._skip + self._limit + 1

    def _behind_cursor(self, chunk: list[Row]) -> list[Row]:
        moment, uid = self._query.cursor
        if not moment:
            return chunk
        return [r for r in chunk if (r["moment"] < moment or (r["moment"] == moment and r["study_uid"] > uid))]

    def _bounds(self) -> tuple[str, str]:
        """First and last day that are looked at."""
        last, cursor = self._plan.last_day, self._query.cursor[0][:8]
        return self._plan.first_day, min(filter(None, (last, cursor)), default="")

    def _dated(self, select: Select, page: int = FIRST_PAGE) -> Partition:
        """A list within the bounds, from the cursor on."""
        first, last = self._plan.first_day, self._plan.last_day
        ends = [last + queries.HIGHEST] if last else []
        if moment := self._query.cursor[0]:
            ends.append(moment + "\0")
        lower = ("moment", first) if first else None
        upper = ("moment", min(ends)) if ends else None
        return Partition(Select(select.table, select.where, select.columns, lower=lower, upper=upper), page)

    async def _days(self) -> AsyncIterator[Group]:
        """The days that have studies, newest first."""
        first, last = self._bounds()
        if self._plan.days:
            for day in self._plan.days:
                if not last or day <= last:
                    yield Group([self._dated(queries.by_day(day), _page(self._wanted()))])
            return
        if not self._plan.counted:
            async for day, studies in Calendar(self.reader, first, last).days():
                yield Group([self._dated(queries.by_day(day), _page(min(self._wanted(), studies + 1)))], studies)
            return
        calendar = Calendar(self.reader, first, last, self._skip)
        self._skip = 0
        async for day, studies in calendar.days():
            # What whole days have not taken of the offset is left to the first one.
            left, calendar.left = calendar.left, 0
            self._skip += left
            page = _page(min(self._wanted(), studies + 1))
            yield Group([self._dated(queries.by_day(day), page)], studies - left)

    async def _tokens(self, name: ByName) -> list[str] | None:
        """The words with a piece, and the keys of its sound; None if there are too many."""
        found: list[str] = []
        for piece, part in ((name.piece, name.part), (name.sound, name.sound_part)):
            match part:
                case Part.WHOLE:
                    found += [piece] if piece else []
                    continue
                case Part.START:
                    rows = await self.reader.select(queries.tokens(piece, TOKENS_MAX + 1))
                case Part.INSIDE:
                    rows = await self.reader.select(queries.tokens_with(piece, TOKENS_MAX + 1))
            if len(rows) > TOKENS_MAX:
                return None
            found += [row["token"] for row in rows]
        return list(dict.fromkeys(found))

    async def _months(self, tokens: Sequence[str]) -> AsyncIterator[Group]:
        """The words' months, newest first."""
        first, last = self._bounds()
        months = [Partition(queries.token_months(t, first[:6], last[:6])) for t in tokens]
        month, group = "", list[Partition]()
        async for chunk in merged(self.reader, months, self._deadline):
            for row in chunk:
                if row["month"] != month and group:
                    yield Group(group)
                    group = []
                month = row["month"]
                shards = shards_of(row["token"])
                page = _page(self._wanted() // shards + PAGE_MIN)
                group += [
                    self._dated(queries.by_name_token(row["token"], month, shard), page) for shard in range(shards)
                ]
        if group:
            yield Group(group)

    # -------------------------------------------------------------------------------------------- below a study

    async def _series_hits(self) -> AsyncGenerator[list[Hit], None]:
        conditions = [c for c in self._query.conditions if c.attribute.level is Level.SERIES]
        tests = match.checks_of(conditions, fuzzy=self._query.fuzzy, combined=self._query.combined)
        one = _single(self._query, "SeriesInstanceUID")
        async for chunk in self._chunks():
            answers = await self.reader.select_many([queries.series_of(s["study_uid"], one) for s in chunk])
            datasets = (
                (s, dicomjson.series(r))
                for s, rows in zip(chunk, answers, strict=True)
                for r in overlay.series_rows(s, rows)
            )
            if hits := [Hit(study, found) for study, found in datasets if match.fits(found, tests)]:
                yield hits

    async def _instance_hits(self) -> AsyncGenerator[list[Hit], None]:
        query = self._query
        of_series = [c for c in query.conditions if c.attribute.level is Level.SERIES]
        of_instance = [c for c in query.conditions if c.attribute.level is Level.INSTANCE]
        series_tests = match.checks_of(of_series, fuzzy=query.fuzzy, combined=query.combined)
        tests = match.checks_of(of_instance, fuzzy=query.fuzzy, combined=query.combined)
        series, sop = _single(query, "SeriesInstanceUID"), _single(query, "SOPInstanceUID")
        async for chunk in self._chunks():
            uids = [s["study_uid"] for s in chunk]
            answers = await self.reader.select_many(
                [queries.instances_of(u, series, sop) for u in uids] + [queries.series_of(u, series) for u in uids]
            )
            hits = []
            for n, study in enumerate(chunk):
                series_rows = overlay.series_rows(study, answers[len(chunk) + n])
                above = {r["series_uid"]: dicomjson.series(r) for r in series_rows}
                fitting = {uid: found for uid, found in above.items() if match.fits(found, series_tests)}
                for row in _first_copies(overlay.instance_rows(study, answers[n])):
                    if row["series_uid"] in fitting:
                        found = dicomjson.instance(row)
                        if match.fits(found, tests):
                            hits.append(Hit(study, fitting[row["series_uid"]], found))
            if hits:
                yield hits

    async def _chunks(self) -> AsyncIterator[list[Row]]:
        """Studies, few enough at once."""
        async for rows in self._studies():
            for at in range(0, len(rows), STUDIES_AT_ONCE):
                if at and self._deadline.over():
                    return
                yield rows[at : at + STUDIES_AT_ONCE]


def _answer_test(query: Query, plan: Plan, *, whole: bool = False) -> Callable[[Row], bool]:
    """The test of a row by its answer. A list that is read by one value holds only what fits that, unless `whole`, and
    only what lies within the days that it is read for.
    """
    conditions = [c for c in plan.filters if whole or not _is_source(c.attribute.keyword, c.kind, plan.source)]
    if not conditions:
        return lambda row: True
    tests = match.checks_of(conditions, fuzzy=query.fuzzy, combined=query.combined)
    read = match.reader(conditions)
    return lambda row: match.fits(read(row["answer"]), tests)


def _is_source(keyword: str, kind: Kind, source: Any) -> bool:
    by = {ByUid: "StudyInstanceUID", ByAccession: "AccessionNumber", ByPatientID: "PatientID"}.get(type(source))
    return keyword == by and kind in (Kind.UIDS, Kind.TEXT)


def _first_copies(rows: Iterable[Row]) -> Iterable[Row]:
    """Of each instance the copy that is served: the first in log order, which the table's order puts first."""
    last = None
    for row in rows:
        key = (row["series_uid"], row["sop_uid"])
        if key != last:
            last = key
            yield row


def _single(query: Query, keyword: str) -> str:
    """The UID that narrows a read, if the query names exactly one."""
    condition = query.find(keyword)
    return condition.values[0] if condition and condition.kind is Kind.UIDS and len(condition.values) == 1 else ""


def _page(wanted: int) -> int:
    return min(max(wanted, PAGE_MIN), NEXT_PAGE)
