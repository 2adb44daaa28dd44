"""A report as FHIR R4 DiagnosticReport JSON: what of it the archive must understand, and when two are the same. Pure.

Everything else in the document is kept as it came, numbers to their last digit.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from schemas.errors import Invalid
from schemas.identity import check_uid, derived_id
from schemas.lifecycle import REPORT_TRANSITIONS
from schemas.report_content import (
    OF_THE_ARCHIVE,
    Signature,
    author_of,
    contacts_of,
    encode_document,
    is_critical,
    kept_document,
    person_of,
    signature_of,
    with_status,
)

STUDIES_MAX: Final = 16
PEOPLE_MAX: Final = 32
CONTACTS_MAX: Final = 8
_PERSON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
STATUSES: Final = frozenset(REPORT_TRANSITIONS) - {""}
UID_SYSTEM: Final = "urn:dicom:uid"
_OID: Final = "urn:oid:"
_SET_BY_THE_ARCHIVE: Final = ("id", "meta")
"""Members that are no part of the content."""

_decoder = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


@dataclass(frozen=True)
class Report:
    """A document that says what a report must say."""

    status: str
    study_uids: tuple[str, ...]
    issued: str
    """RFC 3339, UTC; empty when the document does not say."""
    resource: Mapping[str, Any]

    @property
    def people(self) -> tuple[tuple[str, str], ...]:
        """(person id, `referring` or `reporting`): those whom the document names by a reference to a Practitioner, who
        wrote and signed it, and who is to be told of it.
        """
        signed = self.signature
        wrote = [(person_of(a), "reporting") for a in (self.author, signed.who if signed else "") if person_of(a)]
        told = [(c, "referring") for c in self.contacts]
        return tuple(dict.fromkeys([*_people(self.resource), *wrote, *told]))[:PEOPLE_MAX]

    @property
    def author(self) -> str:
        """Actor who wrote its first version, as the archive knows."""
        return author_of(self.resource)

    @property
    def signature(self) -> Signature | None:
        """Of this version."""
        return signature_of(self.resource)

    @property
    def critical(self) -> bool:
        """Whether it is marked as something that cannot wait."""
        return is_critical(self.resource)

    @property
    def contacts(self) -> tuple[str, ...]:
        """Person ids of who is to be told of a critical result."""
        return tuple(c for c in contacts_of(self.resource) if _PERSON.match(c))[:CONTACTS_MAX]

    @property
    def referring(self) -> tuple[str, ...]:
        """Person ids of who asked for the examination."""
        return tuple(dict.fromkeys(p for p, relation in _people(self.resource) if relation == "referring"))

    @property
    def recorded(self) -> str:
        """When the archive took this version in, RFC 3339."""
        return _text(self.resource.get("meta"), "lastUpdated") or self.issued


def parse(document: bytes) -> Report:
    """Raises Invalid: `report-json`, `report-type`, `report-status`, `report-code`, `report-studies`, `report-issued`,
    `uid-…`. No message holds text of the report.
    """
    try:
        resource = _decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("report-json", "the report is no JSON object") from e
    if resource.get("resourceType") != "DiagnosticReport":
        raise Invalid("report-type", "resourceType is not DiagnosticReport")
    status = resource.get("status")
    if not isinstance(status, str) or status not in STATUSES:
        raise Invalid("report-status", "status is none of FHIR R4 DiagnosticReport.status that the archive keeps")
    if not _has_code(resource.get("code")):
        raise Invalid("report-code", "code has neither a coding with a code nor a text")
    uids = tuple(dict.fromkeys(_study_uids(resource)))
    if not 1 <= len(uids) <= STUDIES_MAX:
        raise Invalid("report-studies", f"a report names 1 to {STUDIES_MAX} studies in imagingStudy")
    return Report(status, uids, _instant(resource.get("issued")), resource)


def report_id(report: Report, asked: str, site: str) -> str:
    """The id that a document asks for, by header or by its own `id`, else that of its first business identifier; ""
    for none of these. Ids that are no UUID are mapped to one, the same each time.
    """
    own = asked or report.resource.get("id", "")
    if own:
        return _as_uuid(own) if isinstance(own, str) else ""
    for identifier in _list(report.resource.get("identifier")):
        system, value = _text(identifier, "system"), _text(identifier, "value")
        if value:
            return derived_id("report", site, system, value)
    return ""


def in_state(report: Report, status: str) -> Report:
    """The same report with another status."""
    if status == report.status:
        return report
    return replace(report, status=status, resource=with_status(report.resource, status))


def versioned(
    report: Report, *, report_id: str, version: int, recorded: str, author: str = "", signature: Signature | None = None
) -> bytes:
    """The document as the archive keeps it. Same arguments, same bytes."""
    return encode_document(
        kept_document(
            report.resource,
            report_id=report_id,
            version=version,
            recorded=recorded,
            author=author,
            signature=signature,
        )
    )


def same_content(sent: Report, kept: Report) -> bool:
    """Whether a document that was sent says what a kept one says; a time of issue that the archive gave is not said."""
    left_out = {*_SET_BY_THE_ARCHIVE, *(() if sent.issued else ("issued",))}
    return _content(sent, left_out) == _content(kept, left_out)


def _content(report: Report, left_out: set[str]) -> bytes:
    said = {k: v for k, v in report.resource.items() if k not in left_out}
    extensions = [e for e in _list(said.pop("extension", None)) if _text(e, "url") not in OF_THE_ARCHIVE]
    return encode_document(said | ({"extension": extensions} if extensions else {}))


def _has_code(code: Any) -> bool:
    if not isinstance(code, dict):
        return False
    return bool(_text(code, "text")) or any(_text(c, "code") for c in _list(code.get("coding")))


def _study_uids(resource: Mapping[str, Any]) -> Iterator[str]:
    """References to studies (`imagingStudy` of R4, `study` of R5): `urn:oid:<UID>` as identifier or reference, or an
    identifier of system `urn:dicom:uid`.
    """
    for reference in (*_list(resource.get("imagingStudy")), *_list(resource.get("study"))):
        identifier = reference.get("identifier") if isinstance(reference, dict) else None
        value = _text(identifier, "value") or _text(reference, "reference")
        if not value.startswith(_OID) and _text(identifier, "system") != UID_SYSTEM:
            raise Invalid("report-studies", "a study is not named by its UID")
        uid = value.removeprefix(_OID)
        check_uid(uid)
        yield uid


def _people(resource: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Requesters of contained ServiceRequests; performers and interpreters (FHIR R4 DiagnosticReport)."""
    for contained in _list(resource.get("contained")):
        if _text(contained, "resourceType") == "ServiceRequest" and (found := _person(contained.get("requester"))):
            yield found, "referring"
    for member in ("performer", "resultsInterpreter"):
        for reference in _list(resource.get(member)):
            if found := _person(reference):
                yield found, "reporting"


def _person(reference: Any) -> str:
    kind, _, id = _text(reference, "reference").partition("/")
    return id if kind == "Practitioner" and _PERSON.match(id) else ""


def _instant(value: Any) -> str:
    """A FHIR instant, which has a zone, in UTC."""
    if value is None:
        return ""
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError) as e:
        raise Invalid("report-issued", "issued is no instant with a time zone") from e


def _as_uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return derived_id("report", text)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
