"""The life of a report: versions that are written, signed, amended and taken back (FHIR R4 DiagnosticReport).

A version goes these steps:

1. the versions that are there are read from S3 (no read model: a producer never asks one), and the change is judged
2. the document is in S3 under its version's key (`If-None-Match: *`: of two writers of one version one is refused)
3. the event `report.issued` is in the chain's journal, and Kafka has acknowledged it or is given a little time to
4. where it became critical with this version, `report.critical-raised` likewise (producers.critical)
5. the sender is told id and version

A crash between 2 and 4 leaves a document without its events; the sender, who was told nothing, sends again, finds its
own content, and they are published: their ids are made of report and version, so that a second is known as such.

What is final was signed by somebody who may. The signature (who, when) stands in the document; what was signed is the
whole document, by the SHA-256 that its event holds. Of a writer who may not sign, `final` becomes `preliminary` and
waits.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

from infra import clock, faults, telemetry
from infra.chain import Publishes
from infra.ports import Objects
from producers.critical import Duty, raised
from producers.report_document import Report, in_state, parse, report_id, same_content, versioned
from schemas.errors import Defect, NotFound, Permanent, SijilError
from schemas.events import Event, Named, ReportIssued
from schemas.identity import derived_id
from schemas.lifecycle import AWAIT_SIGNATURE, SIGNED, as_written, may_follow
from schemas.report_content import Signature

log = telemetry.logger(__name__)

VERSIONS_MAX = 1000
KEPT_S = 10.0
ACKNOWLEDGED_S = 2.0
"""How long an answer waits for Kafka; the event is on this machine's disk before that."""
FHIR_JSON = "application/fhir+json"

ISSUED = telemetry.Counter("sijil_reports_issued", "Versions of reports taken in, by status", ["status"])


@dataclass(frozen=True)
class Writer:
    """Who writes. A service that sends what was signed where it comes from may sign."""

    actor: str
    """`person:7`, `service:ris`."""
    may_sign: bool


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
    sha256: str
    """Of the document: what a signature is of."""
    signed_by: str
    critical_id: str = ""
    """Of the critical result that this version raised."""


class Conflict(Permanent):
    """The change cannot be made on what is there. `status` is HTTP's; `current` what is there, as far as it may be told
    to somebody who may not read it.
    """

    def __init__(self, status: int, reason: str, message: str, current: Told | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.current = status, reason, current


@dataclass
class Reports:
    """Takes in versions of reports. Blocking; thread-safe."""

    objects: Objects
    chain: Publishes
    bucket: str
    site: str
    duty: Duty = field(default_factory=Duty)
    """Who is told of critical results when a report names nobody, and how long they have."""

    def add(self, document: bytes, asked_id: str, writer: Writer) -> Told:
        """POST: the first version, or the next. Content that is there already is no new version. Raises Conflict."""
        report = parse(document)
        id = report_id(report, asked_id, self.site) or str(clock.uuid7())
        versions = self.versions(id)
        last = self._last(id, versions)
        ours = self._ours(report, last, writer)
        for version in reversed(versions):
            kept = last if last is not None and version == last.version else self._read(id, version)
            # What was sent as final and is kept as waiting is there too, also once it was signed
            if same_content(ours, kept.report) or same_content(report, kept.report):
                return self._publish(id, kept, new=False)
        return self._store(id, ours, last, writer)

    def replace(self, id: str, document: bytes, expected: int | None, writer: Writer) -> Told:
        """PUT: the version behind `expected`; None makes the first. Raises Conflict(412, 428, …)."""
        report = parse(document)
        versions = self.versions(id)
        last = self._last(id, versions)
        if expected is None and last is not None:
            raise Conflict(428, "report-if-match", "If-Match with the version that is replaced is needed")
        if expected is not None and expected != (versions[-1] if versions else 0):
            # The sender may not have got our answer: what it sends again is there as the version it asked for.
            if expected + 1 in versions:
                kept = self._read(id, expected + 1)
                before = self._read(id, expected) if expected in versions else None
                if same_content(self._ours(report, before, writer), kept.report):
                    return self._publish(id, kept, new=False)
            raise self._stale(id, last)
        return self._store(id, self._ours(report, last, writer), last, writer)

    def sign(self, id: str, expected: int, sha256: str, writer: Writer) -> Told:
        """Make the version `expected` final by signing what it says; `sha256`: of the document that the signer saw, ""
        if they do not say. Raises NotFound, Conflict(403, 409, 412).
        """
        versions = self.versions(id)
        last = self._last(id, versions)
        if last is None:
            raise NotFound("this report is not in the archive")
        if last.version == expected + 1 and expected in versions:
            signature, before = last.report.signature, self._read(id, expected)
            signed = in_state(before.report, last.report.status)
            if signature and signature.who == writer.actor and same_content(signed, last.report):
                return self._publish(id, last, new=False)  # the answer was lost
        if last.version != expected:
            raise self._stale(id, last)
        if sha256 and sha256 != last.sha256:
            raise self._stale(id, last)
        if not writer.may_sign:
            raise Conflict(403, "report-signature", "signing is for those who may sign reports")
        if last.report.status not in AWAIT_SIGNATURE:
            raise Conflict(
                409, "report-transition", f"a report that is {last.report.status} does not wait for a signature"
            )
        return self._store(id, in_state(last.report, "final"), last, writer)

    def kept(self, id: str, version: int | None = None) -> Kept | None:
        """A version, or the last; None if it is not there."""
        versions = self.versions(id)
        wanted = versions[-1] if versions and version is None else version
        return self._read(id, wanted) if wanted in versions and wanted is not None else None

    def versions(self, id: str) -> list[int]:
        """Step 1: numbers of the versions in S3, ascending."""
        names = (key.rpartition("/")[2].removesuffix(".json") for key in self.objects.list(self.bucket, _prefix(id)))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _ours(self, report: Report, last: Kept | None, writer: Writer) -> Report:
        """As this writer may write it; unchanged where they may not at all, which _store refuses."""
        return in_state(
            report, as_written(report.status, last.report.status if last else "", writer.may_sign) or report.status
        )

    def _store(self, id: str, report: Report, last: Kept | None, writer: Writer) -> Told:
        version = (last.version if last else 0) + 1
        before = last.report.status if last else ""
        if version > VERSIONS_MAX:
            raise Conflict(409, "report-versions", f"a report has at most {VERSIONS_MAX} versions")
        if not may_follow(report.status, before):
            raise Conflict(409, "report-transition", f"{report.status} may not follow {before or 'nothing'}")
        if not as_written(report.status, before, writer.may_sign):
            raise Conflict(403, "report-signature", f"{report.status} is for those who may sign reports")
        # Step 2: the document
        recorded = clock.rfc3339(clock.now())
        data = versioned(
            report,
            report_id=id,
            version=version,
            recorded=recorded,
            author=last.report.author if last else writer.actor,
            signature=Signature(who=writer.actor, when=recorded) if report.status in SIGNED else None,
        )
        digest = hashlib.sha256(data).hexdigest()
        try:
            self.objects.put(self.bucket, _key(id, version), data, sha256=digest, content_type=FHIR_JSON)
        except Defect as taken:
            raise self._stale(id, self._last(id, self.versions(id))) from taken
        faults.point("reports.after-document")
        ISSUED.labels(report.status).inc()
        return self._publish(id, Kept(version, parse(data), len(data), digest), new=True)

    def _publish(self, id: str, kept: Kept, *, new: bool) -> Told:
        """Steps 3 and 4: the events."""
        report, signature = kept.report, kept.report.signature
        event = ReportIssued(
            report_id=id,
            version=kept.version,
            status=report.status,
            study_uids=list(report.study_uids),
            site=self.site,
            issued=report.issued,
            bucket=self.bucket,
            document_key=_key(id, kept.version),
            document_size=kept.size,
            document_sha256=kept.sha256,
            people=[Named(person_id=p, relation=r) for p, r in report.people],
            author=report.author,
            signed_by=signature.who if signature else "",
            signed=signature.when if signature else None,
            critical=report.critical,
        )
        events: list[tuple[Event, str]] = [(event, event_id(id, kept.version))]
        before = self._read(id, kept.version - 1).report if kept.version > 1 else None
        task = raised(event, report, before, self.duty)
        if task is not None:
            events.append((task, derived_id(task.TYPE, task.critical_id)))
        sent = [self.chain.publish(e, id=i, subject=id) for e, i in events]
        for publication in sent:
            publication.kept.result(KEPT_S)
        try:
            for publication in sent:
                publication.acknowledged.result(ACKNOWLEDGED_S)
        except (SijilError, FutureTimeout):
            log.warning("report issued, kafka has not acknowledged it yet", report_id=id, version=str(kept.version))
        return _told(id, kept, new=new, critical_id=task.critical_id if task else "")

    def _stale(self, id: str, last: Kept | None) -> Conflict:
        current = f"the current version is {last.version if last else 0}: read it, and write what follows it"
        return Conflict(412, "report-version", current, _told(id, last, new=False) if last else None)

    def _last(self, id: str, versions: list[int]) -> Kept | None:
        return self._read(id, versions[-1]) if versions else None

    def _read(self, id: str, version: int) -> Kept:
        data = self.objects.get(self.bucket, _key(id, version))
        return Kept(version, parse(data), len(data), hashlib.sha256(data).hexdigest())


def event_id(report_id: str, version: int) -> str:
    """Id of the event of a version."""
    return derived_id(ReportIssued.TYPE, report_id, version)


def _told(id: str, kept: Kept, *, new: bool, critical_id: str = "") -> Told:
    signature = kept.report.signature
    signed_by = signature.who if signature else ""
    return Told(id, kept.version, kept.report.status, new, kept.sha256, signed_by, critical_id)


def _prefix(id: str) -> str:
    return f"reports/{id}/"


def _key(id: str, version: int) -> str:
    return f"{_prefix(id)}{version}.json"
