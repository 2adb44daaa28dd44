"""An order: what is to be done with whom. A FHIR R4 ServiceRequest with a contained Patient, and how it is read.

The resource is the document in S3 that an `order.*` event names; who the patient is stands there and never on the log
(design, rule 3). What a modality's worklist asks (PS3.4 Annex K), FHIR and the archive name so:

| here | ServiceRequest | DICOM |
|---|---|---|
| `site` | `locationReference` `Location/<site>` | where it is done |
| `accession` | `identifier` of type `ACSN` | AccessionNumber |
| `placer` | `identifier` of type `PLAC` | PlacerOrderNumberImagingServiceRequest |
| `study_uid` | `identifier` of system `urn:dicom:uid` | StudyInstanceUID |
| `modality` | `orderDetail`, a code of DCM | Modality |
| `station_ae` | `performer.identifier` of `urn:sijil:ae-title` | ScheduledStationAETitle |
| `procedure_*` | `code` | RequestedProcedureCodeSequence, -Description |
| `body_part` | `bodySite`: code, else text | BodyPartExamined |
| `scheduled` | `occurrenceDateTime`, `occurrencePeriod.start` | ScheduledProcedureStepStartDate, -Time |
| `requester`, `referrer_name` | `requester` `Practitioner/<person id>`, `display` | ReferringPhysicianName |
| `reason` | `reasonCode`: text, else display | ReasonForTheRequestedProcedure |

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.errors import Invalid
from schemas.identity import NATIONAL_ISSUER, NationalID
from schemas.names import ascii_digits

DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
IDENTIFIER_TYPES: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"
UID_SYSTEM: Final = "urn:dicom:uid"
AE_SYSTEM: Final = "urn:sijil:ae-title"
ACCESSION_SYSTEM: Final = "urn:sijil:accession:"
"""And the site behind it: accession numbers are of a site."""
PATIENT_SYSTEM: Final = "urn:sijil:patient:"
"""And the site behind it: a hospital's own numbers."""

_OID: Final = "urn:oid:"
_SEXES: Final = {"male": "M", "female": "F", "other": "O"}
_GENDERS: Final = {sex: gender for gender, sex in _SEXES.items()}
_PERSON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_ARABIC: Final = re.compile(r"[\u0600-\u06ff]")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an order says. Text that it does not have is empty."""

    order_id: str = ""
    status: str = "active"
    """FHIR R4 request-status."""
    priority: str = "routine"
    """routine, urgent, asap, stat."""
    site: str = ""
    accession: str = ""
    study_uid: str = ""
    placer: str = ""
    """Order number of who ordered."""
    modality: str = ""
    station_ae: str = ""
    body_part: str = ""
    procedure_code: str = ""
    procedure_scheme: str = ""
    procedure_text: str = ""
    reason: str = ""
    """The clinical question."""
    scheduled: str = ""
    """FHIR dateTime: a day, or a moment with its zone."""
    authored: str = ""
    requester: str = ""
    """Person id of who refers, if the archive knows them."""
    referrer_name: str = ""
    patient_name: str = ""
    """DICOM PN: groups by =, components by ^; Latin letters in front of Arabic ones where there are both."""
    patient_id: str = ""
    issuer: str = ""
    """NATIONAL_ISSUER, a site, or the system of the number."""
    birth_date: str = ""
    """YYYYMMDD."""
    sex: str = ""
    """M, F or O."""
    phone: str = ""


def read(resource: Mapping[str, Any]) -> Order:
    """What a ServiceRequest says. Birth date and sex that it leaves out are those of the national ID. Never raises:
    what is no such thing is empty, and `producers.order_document` says what must be there.
    """
    patient = contained_patient(resource)
    site = _site(resource)
    patient_id, issuer = _patient_id(patient, site)
    birth_date = _text(patient, "birthDate").replace("-", "")
    sex = _SEXES.get(_text(patient, "gender"), "")
    if issuer == NATIONAL_ISSUER and not (birth_date and sex):
        try:
            national = NationalID.parse(patient_id)
            birth_date, sex = birth_date or national.birth_date.strftime("%Y%m%d"), sex or national.sex
        except Invalid:
            pass
    code = _concept(resource.get("code"))
    body = _concept(next(iter(_list(resource.get("bodySite"))), None))
    requester = resource.get("requester")
    return Order(
        order_id=_text(resource, "id"),
        status=_text(resource, "status"),
        priority=_text(resource, "priority") or "routine",
        site=site,
        accession=_typed(resource, "ACSN"),
        study_uid=_study_uid(resource),
        placer=_typed(resource, "PLAC"),
        modality=_modality(resource),
        station_ae=_station(resource),
        body_part=body[0] or body[2],
        procedure_code=code[0],
        procedure_scheme=code[1],
        procedure_text=code[2],
        reason=" ".join(filter(None, (_concept(r)[2] for r in _list(resource.get("reasonCode"))))),
        scheduled=_text(resource, "occurrenceDateTime") or _text(resource.get("occurrencePeriod"), "start"),
        authored=_text(resource, "authoredOn"),
        requester=_person(requester),
        referrer_name=_text(requester, "display"),
        patient_name=person_name(_list(patient.get("name"))),
        patient_id=patient_id,
        issuer=issuer,
        birth_date=birth_date,
        sex=sex,
        phone=phone(patient),
    )


def resource(order: Order) -> dict[str, Any]:
    """The ServiceRequest that says what an order says."""
    identifiers = [
        _identifier("PLAC", f"urn:sijil:placer:{order.site}", order.placer),
        _identifier("ACSN", ACCESSION_SYSTEM + order.site, order.accession),
        {"system": UID_SYSTEM, "value": _OID + order.study_uid} if order.study_uid else None,
    ]
    requester = {
        "reference": f"Practitioner/{order.requester}" if order.requester else "",
        "display": order.referrer_name,
    }
    made = {
        "resourceType": "ServiceRequest",
        "id": order.order_id,
        "contained": [_patient(order)],
        "identifier": [i for i in identifiers if i],
        "status": order.status,
        "intent": "order",
        "priority": order.priority,
        "code": coded(order.procedure_code, order.procedure_scheme, order.procedure_text),
        "orderDetail": [coded(order.modality, DCM, "")] if order.modality else [],
        "bodySite": [{"text": order.body_part}] if order.body_part else [],
        "subject": {"reference": "#patient"},
        "occurrenceDateTime": order.scheduled,
        "authoredOn": order.authored,
        "requester": {k: v for k, v in requester.items() if v},
        "performer": [{"identifier": {"system": AE_SYSTEM, "value": order.station_ae}}] if order.station_ae else [],
        "locationReference": [{"reference": f"Location/{order.site}"}] if order.site else [],
        "reasonCode": [{"text": order.reason}] if order.reason else [],
    }
    return {name: value for name, value in made.items() if value}


_NUMBERS: Final = frozenset({"id", "meta", "identifier", "status", "intent", "authoredOn", "subject", "contained"})


def revised(document: Mapping[str, Any], order: Order) -> dict[str, Any]:
    """A ServiceRequest that says what `order` says. Members that say the same as before stay as they came, and so does
    what `Order` does not know (notes, further numbers, more of the patient); status and numbers are the document's.
    """
    before = read(document)
    was = contained_patient(document)
    patient = _laid(was, _patient(before), _patient(order)) | {"id": _text(was, "id") or "patient"}
    if order.issuer == NATIONAL_ISSUER != before.issuer:
        # A hospital's number stays beside the national ID
        patient["identifier"] = [*patient["identifier"], *(i for i in _list(was.get("identifier")))]
    others = [c for c in _list(document.get("contained")) if c is not was]
    laid = _laid(document, resource(before), resource(order))
    return {
        **{n: v for n, v in laid.items() if n not in _NUMBERS},
        **{n: v for n, v in document.items() if n in _NUMBERS},
        "contained": [*others, patient],
        "subject": {"reference": f"#{patient['id'].removeprefix('#')}"},
    }


def _laid(found: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, with what is said now in the place of what was said before, where that differs."""
    changed = {n for n in {*before, *now} if before.get(n) != now.get(n)}
    return {**{n: v for n, v in found.items() if n not in changed}, **{n: now[n] for n in changed if n in now}}


def _is_national(identifier: Any) -> bool:
    return _text(identifier, "system") == NATIONAL_ISSUER or "NI" in _types(identifier)


def _patient(order: Order) -> dict[str, Any]:
    system = order.issuer if order.issuer == NATIONAL_ISSUER or ":" in order.issuer else PATIENT_SYSTEM + order.issuer
    born = order.birth_date
    made = {
        "resourceType": "Patient",
        "id": "patient",
        "identifier": [{"system": system, "value": order.patient_id}] if order.patient_id else [],
        "name": [_human_name(group) for group in order.patient_name.split("=") if group],
        "telecom": [{"system": "phone", "value": order.phone}] if order.phone else [],
        "gender": _GENDERS.get(order.sex, ""),
        "birthDate": f"{born[:4]}-{born[4:6]}-{born[6:]}" if len(born) == 8 else "",
    }
    return {name: value for name, value in made.items() if value}


def _human_name(group: str) -> dict[str, Any]:
    family, separated, given = group.partition("^")
    text = group.replace("^", " ").strip()
    made = (
        {"text": text, "family": family, "given": [g for g in given.split("^") if g]} if separated else {"text": text}
    )
    return {name: value for name, value in made.items() if value}


def _identifier(kind: str, system: str, value: str) -> dict[str, Any] | None:
    coding = {"system": IDENTIFIER_TYPES, "code": kind}
    return {"type": {"coding": [coding]}, "system": system, "value": value} if value else None


def coded(code: str, scheme: str, text: str) -> dict[str, Any]:
    """A CodeableConcept of what there is."""
    coding = {"system": scheme, "code": code, "display": text} if code else {}
    found = {"coding": [{k: v for k, v in coding.items() if v}] if coding else [], "text": text}
    return {name: value for name, value in found.items() if value}


def contained_patient(resource: Mapping[str, Any]) -> Mapping[str, Any]:
    """The contained Patient whom `subject` names, or the only one; empty without one."""
    patients = [c for c in _list(resource.get("contained")) if _text(c, "resourceType") == "Patient"]
    fragment, inside, wanted = _text(resource.get("subject"), "reference").partition("#")
    if inside and not fragment:
        patients = [p for p in patients if _text(p, "id").removeprefix("#") == wanted]
    return patients[0] if len(patients) == 1 else {}


def person_name(names: Sequence[Any]) -> str:
    """FHIR HumanNames as a DICOM PN: one group, or the Latin and the Arabic spelling."""
    groups = [group for name in names if (group := _name(name))]
    latin = next((g for g in groups if not _ARABIC.search(g)), "")
    arabic = next((g for g in groups if _ARABIC.search(g)), "")
    return f"{latin}={arabic}" if latin and arabic else latin or arabic


def _name(name: Any) -> str:
    family = _text(name, "family")
    given = [g for g in _list(name.get("given") if isinstance(name, dict) else None) if isinstance(g, str)]
    text = "^".join((family, " ".join(given))).rstrip("^") if family or given else _text(name, "text")
    return text.replace("=", " ").replace("\\", " ").strip()


def phone(patient: Mapping[str, Any]) -> str:
    """A patient's telephone, a mobile one first."""
    found = [t for t in _list(patient.get("telecom")) if _text(t, "system") in ("phone", "sms") and _text(t, "value")]
    found.sort(key=lambda t: _text(t, "use") != "mobile")
    return ascii_digits(_text(found[0], "value")).strip() if found else ""


def _patient_id(patient: Mapping[str, Any], site: str) -> tuple[str, str]:
    """(number, issuer): the national ID if there is one, else the first number."""
    listed = [i for i in _list(patient.get("identifier")) if _text(i, "value").strip()]
    for identifier in listed:
        if _is_national(identifier):
            return ascii_digits(_text(identifier, "value")).strip(), NATIONAL_ISSUER
    for identifier in listed:
        system = _text(identifier, "system").removeprefix(PATIENT_SYSTEM)
        return ascii_digits(_text(identifier, "value")).strip(), system or site
    return "", ""


def _typed(resource: Mapping[str, Any], kind: str) -> str:
    found = (_text(i, "value").strip() for i in _list(resource.get("identifier")) if kind in _types(i))
    return next(found, "")


def _types(identifier: Any) -> set[str]:
    concept = identifier.get("type") if isinstance(identifier, dict) else None
    codings = _list(concept.get("coding") if isinstance(concept, dict) else None)
    return {_text(c, "code") for c in codings}


def _study_uid(resource: Mapping[str, Any]) -> str:
    for identifier in _list(resource.get("identifier")):
        if _text(identifier, "system") == UID_SYSTEM:
            return _text(identifier, "value").strip().removeprefix(_OID)
    return ""


def _modality(resource: Mapping[str, Any]) -> str:
    details = (c for d in _list(resource.get("orderDetail")) for c in _codings(d))
    return next((_text(c, "code").strip().upper() for c in details if _text(c, "system") == DCM), "")


def _station(resource: Mapping[str, Any]) -> str:
    for performer in _list(resource.get("performer")):
        identifier = performer.get("identifier") if isinstance(performer, dict) else None
        if _text(identifier, "system") == AE_SYSTEM:
            return _text(identifier, "value").strip()
    return ""


def _site(resource: Mapping[str, Any]) -> str:
    for reference in _list(resource.get("locationReference")):
        kind, _, id = _text(reference, "reference").partition("/")
        if kind == "Location" and id:
            return id
    return ""


def _person(reference: Any) -> str:
    kind, _, id = _text(reference, "reference").partition("/")
    return id if kind == "Practitioner" and _PERSON.match(id) else ""


def _concept(concept: Any) -> tuple[str, str, str]:
    """(code, scheme, words) of a CodeableConcept: of its first coding with a code."""
    coding: Any = next((c for c in _codings(concept) if _text(c, "code")), {})
    words = _text(concept, "text") or _text(coding, "display")
    return _text(coding, "code"), _text(coding, "system"), words


def _codings(concept: Any) -> Iterator[Any]:
    yield from _list(concept.get("coding") if isinstance(concept, dict) else None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
