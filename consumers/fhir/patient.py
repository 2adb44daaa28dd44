"""Who a patient key is as FHIR R4 Patient (hl7.org/fhir/R4/patient.html). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from consumers.fhir import codes
from consumers.fhir.codes import Resource, compact
from consumers.fhir.ids import patient_id, patient_reference
from consumers.fhir.moments import day
from consumers.fhir.person_name import human_names, name_text
from schemas.identity import KEY_NATIONAL, KEY_STUDY, NATIONAL_ISSUER

GENDERS: Final[Mapping[str, str]] = {"M": "male", "F": "female", "O": "other"}
"""DICOM PatientSex → FHIR AdministrativeGender."""


def patient(
    row: Mapping[str, Any], *, linked: Iterable[str] = (), replaced_by: str = "", national_system: str = NATIONAL_ISSUER
) -> Resource:
    """Of a row of `patients`. `linked`: patient keys of files that people joined to this one; `replaced_by`: the key of
    the file that this one was joined to; `national_system`: what the reader calls Egypt's national ID.
    """
    key = row["patient_key"]
    links = [{"other": {"reference": patient_reference(k)}, "type": "replaces"} for k in sorted(linked)]
    if replaced_by:
        links.append({"other": {"reference": patient_reference(replaced_by)}, "type": "replaced-by"})
    return compact(
        {
            "resourceType": "Patient",
            "id": patient_id(key),
            "identifier": identifiers(row, national_system),
            "active": not replaced_by,
            "name": human_names(row["patient_name"] or ""),
            "gender": GENDERS.get(row["sex"] or ""),
            "birthDate": day(row["birth_date"] or ""),
            "link": links,
        }
    )


def identifiers(row: Mapping[str, Any], national_system: str = NATIONAL_ISSUER) -> list[Resource]:
    """The national ID or the issuer's number, and the patient key. A placeholder (`UNKNOWN`) is no identifier."""
    found: list[Resource] = []
    number, basis = row["patient_id"] or "", row["basis"]
    if number and basis == KEY_NATIONAL:
        found.append({"use": "official", "type": codes.typed("NI"), "system": national_system, "value": number})
    elif number and basis != KEY_STUDY:
        system = codes.local_system(row["issuer"]) if row["issuer"] else ""
        found.append(compact({"use": "usual", "type": codes.typed("MR"), "system": system, "value": number}))
    return [*found, {"use": "secondary", "system": codes.PATIENT_KEY, "value": row["patient_key"]}]


def subject(row: Mapping[str, Any]) -> Resource:
    """A reference to a patient, of a row of `patients` or of `studies` (whose `basis` is not known)."""
    return compact(
        {"reference": patient_reference(row["patient_key"]), "display": name_text(row["patient_name"] or "")}
    )
