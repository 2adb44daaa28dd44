"""What a report says, and the FHIR R4 DiagnosticReport that says it. Pure, both ways.

| content | in the document |
|---|---|
| procedure | `code` |
| technique | contained Observation `#technique` (LOINC 55111-9), in `result` |
| findings | contained Observation `#findings` (LOINC 59776-5), in `result` |
| impression, coded | `conclusion`, `conclusionCode` (ICD-10, SNOMED CT, as given) |
| dose | contained Observations `#dose-1`… (DCM codes of PS3.16 CID 10003 ff.), in `result` |
| who asked, and why | contained ServiceRequest `#order`: `requester`, `reasonCode.text`, in `basedOn` |
| a text or PDF as it came | `presentedForm` |
| language | `language` |
| body part, category, critical, contacts, comparisons | extensions: EXTENSIONS |
| author, signature | extensions that the archive alone sets |

A document from elsewhere may say more, or less: `content_of` reads what is there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

BODY_PART: Final = "urn:sijil:report-body-part"
CATEGORY: Final = "urn:sijil:report-category"
CRITICAL: Final = "urn:sijil:report-critical"
CONTACT: Final = "urn:sijil:report-critical-contact"
COMPARISON: Final = "urn:sijil:report-comparison"
AUTHOR: Final = "urn:sijil:report-author"
SIGNATURE: Final = "urn:sijil:report-signature"
EXTENSIONS: Final[Mapping[str, tuple[str, str]]] = {
    BODY_PART: ("valueCodeableConcept", "what was examined, as BodyPartExamined or SNOMED CT"),
    CATEGORY: ("valueCodeableConcept", "category of an assessment scheme: BI-RADS 4A, for example"),
    CRITICAL: ("valueBoolean", "true: it tells of something that cannot wait"),
    CONTACT: ("valueReference", "Practitioner/<person id> who is to be told of it; repeated, in their order"),
    COMPARISON: ("valueReference", "urn:oid:<Study Instance UID> of an earlier study it was compared with; repeated"),
    AUTHOR: ("valueIdentifier", "who wrote the report first (set by the archive)"),
    SIGNATURE: ("extension", "who (valueIdentifier) and when (valueInstant) signed this version (set by the archive)"),
}
"""URL → (its value, what it says)."""
OF_THE_ARCHIVE: Final = frozenset({AUTHOR, SIGNATURE})
ACTOR_SYSTEM: Final = "urn:sijil:actor"
UID_SYSTEM: Final = "urn:dicom:uid"
LOINC: Final = "http://loinc.org"
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
UCUM: Final = "http://unitsofmeasure.org"
FINDINGS_CODE: Final = "59776-5"
TECHNIQUE_CODE: Final = "55111-9"
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "technique": (TECHNIQUE_CODE, "Current imaging procedure descriptions Document"),
    "findings": (FINDINGS_CODE, "Procedure findings Narrative"),
}
"""Member of Content → LOINC code and its display."""
IMAGING_REPORT: Final = {"system": LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}
RADIOLOGY: Final = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}
OBSERVATION_STATUS: Final[Mapping[str, str]] = {
    "registered": "registered",
    "partial": "preliminary",
    "preliminary": "preliminary",
    "final": "final",
    "amended": "amended",
    "corrected": "corrected",
    "appended": "amended",
    "cancelled": "cancelled",
    "entered-in-error": "entered-in-error",
}
"""DiagnosticReport.status → Observation.status of what the report contains."""
_OID: Final = "urn:oid:"
_encoder = msgspec.json.Encoder(decimal_format="number", order="deterministic")
_PRACTITIONER: Final = "Practitioner/"


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A CodeableConcept of one coding. Any part may be empty, not all."""

    text: str = ""
    system: str = ""
    code: str = ""

    def __bool__(self) -> bool:
        return bool(self.text or self.code)


@dataclass(frozen=True, kw_only=True)
class Dose:
    """A figure of a dose SR: concept (DCM), value, unit (UCUM)."""

    code: str
    meaning: str
    value: Decimal
    unit: str


@dataclass(frozen=True, kw_only=True)
class Presented:
    """A form that came from elsewhere."""

    content_type: str
    data: bytes
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Who answers for a version, and since when (RFC 3339). What is signed is the document that says so."""

    who: str
    """Actor: `person:7`, `service:ris`."""
    when: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """A report as people write and read it."""

    status: str
    study_uids: tuple[str, ...]
    procedure: Coded = Coded()
    body_part: Coded = Coded()
    technique: str = ""
    findings: str = ""
    impression: str = ""
    conclusions: tuple[Coded, ...] = ()
    category: Coded = Coded()
    critical: bool = False
    contacts: tuple[str, ...] = ()
    """Person ids of who is to be told of a critical result, in their order."""
    comparisons: tuple[str, ...] = ()
    """Study Instance UIDs."""
    dose: tuple[Dose, ...] = ()
    referring: str = ""
    """Person id."""
    question: str = ""
    language: str = ""
    """BCP 47: ar, en."""
    issued: str = ""
    presented: tuple[Presented, ...] = ()
    interpreters: tuple[str, ...] = ()
    """Person ids in resultsInterpreter."""


# ------------------------------------------------------------------------------------------------ writing


def document_of(content: Content) -> dict[str, Any]:
    """The DiagnosticReport that says it, without what the archive sets (id, version, author, signature)."""
    contained: list[dict[str, Any]] = []
    results: list[dict[str, str]] = []
    status = OBSERVATION_STATUS.get(content.status, "unknown")
    for id, text in (("technique", content.technique), ("findings", content.findings)):
        if text:
            loinc, display = _TEXTS[id]
            code = {"coding": [{"system": LOINC, "code": loinc, "display": display}]}
            contained.append(_observation(id, status, code) | {"valueString": text})
            results.append({"reference": f"#{id}"})
    for n, dose in enumerate(content.dose, start=1):
        code = {"coding": [{"system": DCM, "code": dose.code, "display": dose.meaning}]}
        quantity = {"value": dose.value, "unit": dose.unit, "system": UCUM, "code": dose.unit}
        contained.append(_observation(f"dose-{n}", status, code) | {"valueQuantity": quantity})
        results.append({"reference": f"#dose-{n}"})
    document: dict[str, Any] = {"resourceType": "DiagnosticReport", "status": content.status}
    if content.referring or content.question:
        contained.append(_order(content))
        document["basedOn"] = [{"reference": "#order"}]
    document |= {
        "category": [{"coding": [dict(RADIOLOGY)]}],
        "code": _concept(content.procedure) or {"coding": [dict(IMAGING_REPORT)]},
        "imagingStudy": [{"identifier": {"system": UID_SYSTEM, "value": _OID + u}} for u in content.study_uids],
    }
    extensions = list(_extensions(content))
    optional = {
        "language": content.language,
        "contained": contained,
        "extension": extensions,
        "issued": content.issued,
        "resultsInterpreter": [{"reference": _PRACTITIONER + p} for p in content.interpreters],
        "result": results,
        "conclusion": content.impression,
        "conclusionCode": [_concept(c) for c in content.conclusions if c],
        "presentedForm": [_attachment(p) for p in content.presented],
    }
    return document | {name: value for name, value in optional.items() if value}


def with_status(document: Mapping[str, Any], status: str) -> dict[str, Any]:
    """The same report in another state; what it contains follows."""
    contained = [
        {**c, "status": OBSERVATION_STATUS.get(status, "unknown")}
        if _text(c, "resourceType") == "Observation" and "status" in c
        else c
        for c in _list(document.get("contained"))
    ]
    return {**document, "status": status} | ({"contained": contained} if contained else {})


def attributed(document: Mapping[str, Any], author: str, signature: Signature | None) -> dict[str, Any]:
    """The document with its author and signature as the archive knows them, and no others."""
    extensions = [e for e in _list(document.get("extension")) if _text(e, "url") not in OF_THE_ARCHIVE]
    if author:
        extensions.append({"url": AUTHOR, "valueIdentifier": _actor(author)})
    if signature is not None:
        parts = [
            {"url": "who", "valueIdentifier": _actor(signature.who)},
            {"url": "when", "valueInstant": signature.when},
        ]
        extensions.append({"url": SIGNATURE, "extension": parts})
    bare = {k: v for k, v in document.items() if k != "extension"}
    return bare | ({"extension": extensions} if extensions else {})


def kept_document(
    document: Mapping[str, Any],
    *,
    report_id: str,
    version: int,
    recorded: str,
    author: str = "",
    signature: Signature | None = None,
) -> dict[str, Any]:
    """The document as the archive keeps it: with id, version, author, signature and the time it was taken in, which is
    that of issue where the document says none.
    """
    meta = document.get("meta")
    kept = dict(meta) if isinstance(meta, dict) else {}
    return {
        **attributed(document, author, signature),
        "id": report_id,
        "meta": {**kept, "versionId": str(version), "lastUpdated": recorded},
        "issued": document.get("issued") or recorded,
    }


def encode_document(document: Mapping[str, Any]) -> bytes:
    """As JSON: the same document, the same bytes, numbers to their last digit."""
    return _encoder.encode(document)


def _observation(id: str, status: str, code: Mapping[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id, "status": status, "code": code}


def _order(content: Content) -> dict[str, Any]:
    # R4 wants a subject: the patient of the studies, whom a report does not name
    order: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "id": "order",
        "status": "active",
        "intent": "order",
        "subject": {"display": "the patient of the studies"},
    }
    if content.referring:
        order["requester"] = {"reference": _PRACTITIONER + content.referring}
    if content.question:
        order["reasonCode"] = [{"text": content.question}]
    return order


def _extensions(content: Content) -> Iterator[dict[str, Any]]:
    if content.body_part:
        yield {"url": BODY_PART, "valueCodeableConcept": _concept(content.body_part)}
    if content.category:
        yield {"url": CATEGORY, "valueCodeableConcept": _concept(content.category)}
    if content.critical:
        yield {"url": CRITICAL, "valueBoolean": True}
    for person in content.contacts:
        yield {"url": CONTACT, "valueReference": {"reference": _PRACTITIONER + person}}
    for uid in content.comparisons:
        yield {"url": COMPARISON, "valueReference": {"reference": _OID + uid}}


def _concept(coded: Coded) -> dict[str, Any]:
    coding = {name: value for name, value in (("system", coded.system), ("code", coded.code)) if value}
    return ({"coding": [coding]} if coded.code else {}) | ({"text": coded.text} if coded.text else {})


def _attachment(presented: Presented) -> dict[str, Any]:
    data = base64.b64encode(presented.data).decode("ascii")
    attachment = {"contentType": presented.content_type, "data": data}
    return attachment | ({"title": presented.title} if presented.title else {})


def _actor(actor: str) -> dict[str, str]:
    return {"system": ACTOR_SYSTEM, "value": actor}


# ------------------------------------------------------------------------------------------------ reading


def content_of(document: Mapping[str, Any]) -> Content:
    """What a document says; nothing where it says nothing, whatever shape it has."""
    order: Any = next((c for c in _list(document.get("contained")) if _text(c, "resourceType") == "ServiceRequest"), {})
    return Content(
        status=_text(document, "status"),
        study_uids=tuple(dict.fromkeys(_studies(document))),
        procedure=_coded(document.get("code")),
        body_part=_coded(next(_values(document, BODY_PART), None)),
        technique="\n\n".join(_texts(document, TECHNIQUE_CODE)),
        findings="\n\n".join(_texts(document, FINDINGS_CODE)),
        impression=_text(document, "conclusion"),
        conclusions=tuple(c for c in map(_coded, _list(document.get("conclusionCode"))) if c),
        category=_coded(next(_values(document, CATEGORY), None)),
        critical=is_critical(document),
        contacts=contacts_of(document),
        comparisons=tuple(_text(v, "reference").removeprefix(_OID) for v in _values(document, COMPARISON)),
        dose=tuple(_doses(document)),
        referring=_person(order.get("requester")),
        question=next((t for r in _list(order.get("reasonCode")) if (t := _text(r, "text"))), ""),
        language=_text(document, "language"),
        issued=_text(document, "issued"),
        presented=tuple(_presented(document)),
        interpreters=tuple(p for r in _list(document.get("resultsInterpreter")) if (p := _person(r))),
    )


def is_critical(document: Mapping[str, Any]) -> bool:
    """Whether it is marked as something that cannot wait."""
    return any(value is True for value in _values(document, CRITICAL))


def contacts_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Person ids of who is to be told of a critical result, in their order."""
    return tuple(dict.fromkeys(p for v in _values(document, CONTACT) if (p := _person(v))))


def author_of(document: Mapping[str, Any]) -> str:
    """The actor who wrote it first; "" if the archive does not know."""
    return next((_text(v, "value") for v in _values(document, AUTHOR)), "")


def signature_of(document: Mapping[str, Any]) -> Signature | None:
    """Who signed it, and when."""
    for extension in _list(document.get("extension")):
        if _text(extension, "url") == SIGNATURE:
            parts = {_text(p, "url"): p for p in _list(extension.get("extension"))}
            who = parts.get("who", {}).get("valueIdentifier")
            return Signature(who=_text(who, "value"), when=_text(parts.get("when"), "valueInstant"))
    return None


def person_of(actor: str) -> str:
    """The person id of an actor; "" of what is no person."""
    return actor.removeprefix("person:") if actor.startswith("person:") else ""


def _values(document: Mapping[str, Any], url: str) -> Iterator[Any]:
    name = EXTENSIONS[url][0]
    for extension in _list(document.get("extension")):
        if _text(extension, "url") == url and name in extension:
            yield extension[name]


def _studies(document: Mapping[str, Any]) -> Iterator[str]:
    for reference in (*_list(document.get("imagingStudy")), *_list(document.get("study"))):
        identifier = reference.get("identifier") if isinstance(reference, dict) else None
        if value := _text(identifier, "value") or _text(reference, "reference"):
            yield value.removeprefix(_OID)


def _observations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(system, code, display, Observation) of those contained that have a coding."""
    for contained in _list(document.get("contained")):
        if _text(contained, "resourceType") == "Observation":
            code = contained.get("code")
            for coding in _list(code.get("coding") if isinstance(code, dict) else None):
                yield _text(coding, "system"), _text(coding, "code"), _text(coding, "display"), contained


def _texts(document: Mapping[str, Any], loinc: str) -> Iterable[str]:
    for system, code, _, observation in _observations(document):
        if (system, code) == (LOINC, loinc) and (text := _text(observation, "valueString")):
            yield text


def _doses(document: Mapping[str, Any]) -> Iterator[Dose]:
    for system, code, display, observation in _observations(document):
        quantity = observation.get("valueQuantity")
        if system != DCM or not isinstance(quantity, dict):
            continue
        try:
            value = Decimal(str(quantity.get("value")))
        except InvalidOperation:
            continue
        yield Dose(code=code, meaning=display, value=value, unit=_text(quantity, "code") or _text(quantity, "unit"))


def _presented(document: Mapping[str, Any]) -> Iterator[Presented]:
    for attachment in _list(document.get("presentedForm")):
        try:
            data = base64.b64decode(_text(attachment, "data"), validate=True)
        except binascii.Error:
            continue
        if data:
            kind = _text(attachment, "contentType") or "application/octet-stream"
            yield Presented(content_type=kind, data=data, title=_text(attachment, "title"))


def _coded(concept: Any) -> Coded:
    if not isinstance(concept, dict):
        return Coded()
    coding: Any = next((c for c in _list(concept.get("coding")) if _text(c, "code")), {})
    text = _text(concept, "text") or _text(coding, "display")
    return Coded(text=text, system=_text(coding, "system"), code=_text(coding, "code"))


def _person(reference: Any) -> str:
    kind, _, id = _text(reference, "reference").partition("/")
    return id if kind == "Practitioner" else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
