"""A result as the FHIR R4 DiagnosticReport that the archive keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from producers.hl7.result import Result
from schemas.identity import derived_id
from schemas.report_content import Content, document_of

NUMBER_SYSTEM: Final = "urn:sijil:ris-report:"
"""And the site behind it: numbers of reports are those of a hospital's RIS."""
_encoder = msgspec.json.Encoder(decimal_format="number", order="deterministic")


def report_id_of(site: str, number: str) -> str:
    """The id of the report that a site's RIS knows by this number: further messages of it are its next versions."""
    return derived_id("ris-report", site, number)


def document(result: Result, status: str, study_uids: Sequence[str], *, site: str, source: str) -> bytes:
    """The report in `status` of these studies. `source`: URI of the message it came in, no part of its content."""
    made: dict[str, Any] = document_of(
        Content(
            status=status,
            study_uids=tuple(study_uids),
            procedure=result.procedure,
            technique=result.technique,
            findings=result.findings,
            impression=result.impression,
            critical=result.critical,
            question=result.question,
            issued=result.issued,
            presented=result.presented,
        )
    )
    made["identifier"] = [{"system": NUMBER_SYSTEM + site, "value": result.number}]
    made["meta"] = {"source": source}
    if result.interpreter:
        made["resultsInterpreter"] = [{"display": _shown(result.interpreter)}]
    if result.referring:
        made["contained"] = [_asked_by(c, _shown(result.referring)) for c in made.get("contained", [])]
    return _encoder.encode(made)


def _asked_by(contained: Mapping[str, Any], name: str) -> dict[str, Any]:
    if contained.get("resourceType") != "ServiceRequest":
        return dict(contained)
    return {**contained, "requester": {"display": name}}


def _shown(person_name: str) -> str:
    """A DICOM PN group as people write it: prefix given middle family suffix."""
    family, given, middle, prefix, suffix = (*person_name.split("^"), "", "", "", "")[:5]
    return " ".join(p for p in (prefix, given, middle, family, suffix) if p)
