"""Carrying out a search: the Plan's rows, filtered by the Query, to the page asked for.

Answers are in a stable order: of studies by the list they are read from (newest day first, then by UID), of series and
instances by UID within their study. A walk that passes its deadline stops with what it has and says so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from consumers.api import dicomjson, queries
from consumers.api.attributes import Level
from consumers.api.match import fits, needs_attributes, row_tests
from consumers.api.qido import ByAccession, ByDay, ByNameToken, ByPatientID, ByUid, Plan, Query
from consumers.api.walk import Deadline, Partition, listed, merged, walked
from infra.ports import Row, Select, Tables
from schemas.tables import NO_DATE

TOKENS_MAX = 100
"""Tokens of a name's start that are followed one by one; above, its matches are dense enough among the days."""
STUDIES_AT_ONCE = 16
"""Studies whose series or instances are read at once."""
CENTURIES = (18, 21)
"""First two digits of the years that a walk visits if no dates are named: there were no X-rays before."""


@dataclass(frozen=True)
class Hit:
    """A row found, with those above it."""

    study: Row
    series: Row | None = None
    instance: Row | None = None


@dataclass
class Found:
    """A page of hits. `more`: others exist behind it; `cut`: the deadline passed before all could be looked at."""

    hits: list[Hit] = field(default_factory=list)
    more: bool = False
    cut: bool = False


class Searcher:
    """Searches of one keyspace of read models."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def search(self, query: Query, plan: Plan, *, limit: int, deadline: Deadline) -> Found:
        """The page of `query.offset` and `limit`."""
        found = Found()
        skip = query.offset
        async with aclosing(self._hits(query, plan, deadline)) as hits:
            async for hit in hits:
                if skip:
                    skip -= 1
                elif len(found.hits) < limit:
                    found.hits.append(hit)
                else:
                    found.more = True
                    break
        found.cut = deadline.passed
        return found

    def _hits(self, query: Query, plan: Plan, deadline: Deadline) -> AsyncGenerator[Hit, None]:
        studies = self._studies(query, plan, deadline)
        match query.level:
            case Level.STUDY:
                return (Hit(row) async for row in studies)
            case Level.SERIES:
                return self._series(query, studies)
            case Level.INSTANCE:
                return self._instances(query, studies)

    # -------------------------------------------------------------------------------------------- studies

    async def _studies(self, query: Query, plan: Plan, deadline: Deadline) -> AsyncIterator[Row]:
        header = needs_attributes(query.conditions, Level.STUDY) or dicomjson.needs_study_header(query)
        wanted = row_tests(query.conditions, Level.STUDY)
        seen: set[str] = set()
        async for row in self._candidates(plan, header, deadline):
            if row.get("study_date") == NO_DATE:
                row["study_date"] = ""
            uid = row["study_uid"]
            if uid not in seen and fits(row, wanted):
                seen.add(uid)
                yield row

    async def _candidates(self, plan: Plan, header: bool, deadline: Deadline) -> AsyncIterator[Row]:
        tables = self._tables
        match plan.source:
            case ByUid(uids):
                for rows in await tables.select_many([queries.study(u, header=header) for u in uids]):
                    for row in rows:
                        yield row
                return
            case ByAccession(accession):
                rows_ = merged(tables, [Partition(queries.by_accession(accession, header=header))], deadline)
            case ByPatientID(patient_id):
                select = _dated(queries.by_patient_id(patient_id, header=header), plan)
                rows_ = merged(tables, [Partition(select)], deadline)
            case ByNameToken(token, start):
                tokens = await self._tokens(token) if start else [token]
                if len(tokens) > TOKENS_MAX:
                    rows_ = walked(tables, self._days(plan, header), deadline)
                else:
                    rows_ = walked(tables, self._months(tokens, plan, header), deadline)
            case ByDay():
                rows_ = walked(tables, self._days(plan, header), deadline)
        async for row in rows_:
            yield row

    async def _tokens(self, start: str) -> list[str]:
        rows = await self._tables.select(queries.tokens(start, TOKENS_MAX + 1))
        return [row["token"] for row in rows]

    async def _months(self, tokens: Sequence[str], plan: Plan, header: bool) -> AsyncIterator[list[Select]]:
        """The tokens' months, newest first."""
        of_month: dict[str, list[Select]] = {}
        answers = await self._tables.select_many([queries.token_months(t) for t in tokens])
        for token, rows in zip(tokens, answers, strict=True):
            for month, shard in ((r["month"], r["shard"]) for r in rows):
                if _within(month, plan.first_day[:6], plan.last_day[:6]):
                    select = queries.by_name_token(token, month, shard, header=header)
                    of_month.setdefault(month, []).append(_dated(select, plan))
        for month in sorted(of_month, reverse=True):
            yield of_month[month]

    async def _days(self, plan: Plan, header: bool) -> AsyncIterator[list[Select]]:
        """The days that have studies, newest first."""
        oldest = int(plan.first_day[:2]) if plan.first_day else CENTURIES[0]
        newest = int(plan.last_day[:2]) if plan.last_day else max(oldest, CENTURIES[1])
        group: list[Select] = []
        day = ""
        for century in range(newest, oldest - 1, -1):
            partition = Partition(queries.days(f"{century:02}", plan.first_day, plan.last_day))
            async for row in listed(self._tables, partition):
                if row["day"] != day and group:
                    yield group
                    group = []
                day = row["day"]
                group.append(queries.by_day(day, row["shard"], header=header))
        if group:
            yield group

    # -------------------------------------------------------------------------------------------- below a study

    async def _series(self, query: Query, studies: AsyncIterator[Row]) -> AsyncGenerator[Hit, None]:
        wanted = row_tests(query.conditions, Level.SERIES)
        one = _single(query, "SeriesInstanceUID")
        async for chunk in _chunks(studies):
            answers = await self._tables.select_many([queries.series_of(s["study_uid"], one) for s in chunk])
            for study, rows in zip(chunk, answers, strict=True):
                for row in rows:
                    if fits(row, wanted):
                        yield Hit(study, row)

    async def _instances(self, query: Query, studies: AsyncIterator[Row]) -> AsyncGenerator[Hit, None]:
        wanted = row_tests(query.conditions, Level.INSTANCE)
        of_series = row_tests(query.conditions, Level.SERIES)
        series, sop = _single(query, "SeriesInstanceUID"), _single(query, "SOPInstanceUID")
        async for chunk in _chunks(studies):
            uids = [s["study_uid"] for s in chunk]
            answers = await self._tables.select_many(
                [queries.instances_of(u, series, sop) for u in uids] + [queries.series_of(u, series) for u in uids]
            )
            for n, study in enumerate(chunk):
                below = {r["series_uid"]: r for r in answers[len(chunk) + n] if fits(r, of_series)}
                for row in _first_copies(answers[n]):
                    above = below.get(row["series_uid"])
                    if above is not None and fits(row, wanted):
                        yield Hit(study, above, row)


def _first_copies(rows: Iterable[Row]) -> Iterable[Row]:
    """Of each instance the copy that is served: the first in log order, which the table's order puts first."""
    last = None
    for row in rows:
        key = (row["series_uid"], row["sop_uid"])
        if key != last:
            last = key
            yield row


async def _chunks(rows: AsyncIterator[Row]) -> AsyncIterator[list[Row]]:
    chunk: list[Row] = []
    async for row in rows:
        chunk.append(row)
        if len(chunk) == STUDIES_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _single(query: Query, keyword: str) -> str:
    """The UID that narrows a read, if the query names exactly one."""
    condition = query.find(keyword)
    return condition.values[0] if condition and len(condition.values) == 1 else ""


def _dated(select: Select, plan: Plan) -> Select:
    """A list ordered by StudyDate, bounded by the plan's days."""
    lower = ("study_date", plan.first_day) if plan.first_day else None
    upper = ("study_date", plan.last_day + "\0") if plan.last_day else None
    return Select(select.table, select.where, select.columns, lower=lower, upper=upper)


def _within(value: str, first: str, last: str) -> bool:
    return (not first or first <= value) and (not last or value <= last)
