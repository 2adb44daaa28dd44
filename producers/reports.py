"""The report door: `POST /reports` and `PUT /reports/{id}`, FHIR R4 DiagnosticReport JSON.

A version of a report goes these steps:

1. the versions that are there are read from S3 (no read model: a producer never asks one), and the change is judged
2. the document is in S3 under its version's key (`If-None-Match: *`: of two writers of one version one is refused)
3. the event `report.issued` is in the chain's journal, and Kafka has acknowledged it or is given a little time to
4. the sender is told id and version

A crash between 2 and 3 leaves a document without an event; the sender, who was told nothing, sends again, finds its own
content and the event is published: its id is derived from report and version, so that a second one is known as such.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra import clock, faults, telemetry
from infra.chain import ChainedLog
from infra.http_caller import needs
from infra.http_door import HttpDoor
from infra.http_problems import problem
from infra.ports import Objects
from producers.report_document import Report, parse, report_id, same_content, versioned
from schemas.errors import Defect, Invalid, Permanent, SijilError
from schemas.events import Named, ReportIssued
from schemas.identity import derived_id
from schemas.lifecycle import may_follow
from schemas.roles import Permission

log = telemetry.logger(__name__)

BODY_BYTES_MAX = 16 << 20
"""Of one report: presentedForm may hold a document."""
VERSIONS_MAX = 1000
KEPT_S = 10.0
ACKNOWLEDGED_S = 2.0
"""How long an answer waits for Kafka; the event is on this machine's disk before that."""
FHIR_JSON = "application/fhir+json"
MEDIA_TYPES = (FHIR_JSON, "application/json")

ISSUED = telemetry.Counter("sijil_reports_issued", "Versions of reports taken in, by status", ["status"])


class Conflict(Permanent):
    """The change cannot be made on what is there. `status` is HTTP's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Kept:
    """A version in S3."""

    version: int
    report: Report
    size: int
    sha256: str


@dataclass(frozen=True)
class Told:
    """What the sender is told."""

    report_id: str
    version: int
    status: str
    new: bool


class Reports:
    """Takes in versions of reports. Blocking; thread-safe."""

    def __init__(self, objects: Objects, chain: ChainedLog, *, bucket: str, site: str) -> None:
        self._objects, self._chain, self._bucket, self._site = objects, chain, bucket, site

    def add(self, document: bytes, asked_id: str) -> Told:
        """POST: the first version, or the next. Content that is there already is no new version."""
        report = parse(document)
        id = report_id(report, asked_id, self._site) or str(clock.uuid7())
        versions = self._versions(id)
        for version in reversed(versions):
            kept = self._read(id, version)
            if same_content(report, kept.report):
                return self._publish(id, kept, new=False)
        return self._store(id, report, versions)

    def replace(self, id: str, document: bytes, expected: int | None) -> Told:
        """PUT: the version behind `expected`; None makes the first. Raises Conflict(412, 428)."""
        report = parse(document)
        versions = self._versions(id)
        current = versions[-1] if versions else 0
        if expected is None and versions:
            raise Conflict(428, "report-if-match", "If-Match with the version that is replaced is needed")
        if expected is not None and expected != current:
            # The sender may not have got our answer: what it sends again is there as the version it asked for.
            if expected + 1 in versions:
                kept = self._read(id, expected + 1)
                if same_content(report, kept.report):
                    return self._publish(id, kept, new=False)
            raise Conflict(412, "report-version", f"the current version is {current}")
        return self._store(id, report, versions)

    def covered(self, id: str) -> tuple[str, ...]:
        """The studies of a report's last version; none if there is none."""
        versions = self._versions(id)
        return self._read(id, versions[-1]).report.study_uids if versions else ()

    def _store(self, id: str, report: Report, versions: list[int]) -> Told:
        version = (versions[-1] if versions else 0) + 1
        if version > VERSIONS_MAX:
            raise Conflict(409, "report-versions", f"a report has at most {VERSIONS_MAX} versions")
        before = self._read(id, versions[-1]).report.status if versions else ""
        if not may_follow(report.status, before):
            raise Conflict(409, "report-transition", f"{report.status} may not follow {before or 'nothing'}")
        # Step 2: the document
        issued = report.issued or clock.rfc3339(clock.now())
        data = versioned(report, report_id=id, version=version, issued=issued)
        digest = hashlib.sha256(data).hexdigest()
        try:
            self._objects.put(self._bucket, _key(id, version), data, sha256=digest, content_type=FHIR_JSON)
        except Defect as taken:
            raise Conflict(412, "report-version", f"another writer made version {version}") from taken
        faults.point("reports.after-document")
        ISSUED.labels(report.status).inc()
        return self._publish(id, Kept(version, parse(data), len(data), digest), new=True)

    def _publish(self, id: str, kept: Kept, *, new: bool) -> Told:
        """Step 3: the event."""
        event = ReportIssued(
            report_id=id,
            version=kept.version,
            status=kept.report.status,
            study_uids=list(kept.report.study_uids),
            site=self._site,
            issued=kept.report.issued,
            bucket=self._bucket,
            document_key=_key(id, kept.version),
            document_size=kept.size,
            document_sha256=kept.sha256,
            people=[Named(person_id=p, relation=r) for p, r in kept.report.people],
        )
        publication = self._chain.publish(event, id=event_id(id, kept.version), subject=id)
        publication.kept.result(KEPT_S)
        try:
            publication.acknowledged.result(ACKNOWLEDGED_S)
        except (SijilError, FutureTimeout):
            log.warning("report issued, kafka has not acknowledged it yet", report_id=id, version=str(kept.version))
        return Told(id, kept.version, kept.report.status, new)

    def _versions(self, id: str) -> list[int]:
        """Step 1: numbers of the versions in S3, ascending."""
        names = (key.rpartition("/")[2].removesuffix(".json") for key in self._objects.list(self._bucket, _prefix(id)))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _read(self, id: str, version: int) -> Kept:
        data = self._objects.get(self._bucket, _key(id, version))
        return Kept(version, parse(data), len(data), hashlib.sha256(data).hexdigest())


def event_id(report_id: str, version: int) -> str:
    """Id of the event of a version."""
    return derived_id(ReportIssued.TYPE, report_id, version)


def _prefix(id: str) -> str:
    return f"reports/{id}/"


def _key(id: str, version: int) -> str:
    return f"{_prefix(id)}{version}.json"


# ------------------------------------------------------------------------------------------------ HTTP


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the door's handlers."""
    settings = http.settings
    reports = Reports(http.objects, http.chain, bucket=settings.bucket_documents, site=settings.site)
    http.body_limit("/reports", BODY_BYTES_MAX)

    may = [needs(Permission.REPORT_WRITE)]

    @app.post(
        "/reports",
        tags=["Reports"],
        summary="Issue a report, or its next version (FHIR R4 DiagnosticReport)",
        dependencies=may,
    )
    async def add(request: Request) -> Response:
        body = await _body(request)
        if body is not None:
            await _within(http, request, parse(body).study_uids)
        asked = request.headers.get("report-id", "")
        return await _answer(partial(reports.add, body, asked)) if body is not None else _unsupported()

    @app.put(
        "/reports/{report}",
        tags=["Reports"],
        summary="Issue the next version of a report; If-Match names its last",
        dependencies=may,
    )
    async def replace(request: Request, report: str) -> Response:
        body = await _body(request)
        if body is None:
            return _unsupported()
        # Neither what it covers now nor what it covered is beyond the caller's scope
        covered = await asyncio.to_thread(reports.covered, _id(report))
        await _within(http, request, {*covered, *parse(body).study_uids})
        expected = _if_match(request.headers.get("if-match"))
        return await _answer(partial(reports.replace, _id(report), body, expected))


async def _within(http: HttpDoor, request: Request, study_uids: Collection[str]) -> None:
    await http.gate.admit(request, Permission.REPORT_WRITE, tuple(study_uids))


async def _answer(work: partial[Told]) -> Response:
    try:
        told = await asyncio.to_thread(work)
    except Conflict as conflict:
        return problem(conflict.status, "The report cannot be changed so", str(conflict), reason=conflict.reason)
    # Step 4: id and version, and nothing of the document: that would be a read
    return JSONResponse(
        {"report_id": told.report_id, "version": told.version, "status": told.status},
        201 if told.new else 200,
        {"Location": f"/reports/{told.report_id}", "ETag": f'W/"{told.version}"'},
    )


async def _body(request: Request) -> bytes | None:
    """The document; None for another media type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return await request.body() if kind in MEDIA_TYPES else None


def _unsupported() -> Response:
    return problem(415, f"A report is {FHIR_JSON}")


def _id(text: str) -> str:
    """Raises Invalid for what cannot be the id of a report that is there."""
    try:
        return str(UUID(text))
    except ValueError as e:
        raise Invalid("report-id", "the id of a report is a UUID") from e


def _if_match(header: str | None) -> int | None:
    if header is None:
        return None
    number = header.strip().removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit()):
        raise Invalid("report-if-match", 'If-Match is W/"<version>"')
    return int(number)
