"""Systems and names that several resources use. Pure."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from schemas.orders import ACCESSION_SYSTEM, PATIENT_SYSTEM

Resource = dict[str, Any]
"""A resource, or a piece of one, as JSON."""

MEDIA_TYPE: Final = "application/fhir+json"
VERSION: Final = "4.0.1"

PATIENT_KEY: Final = "urn:sijil:patient-key"
DICOM_UID: Final = "urn:dicom:uid"
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
IDENTIFIER_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"
CONNECTION_TYPE: Final = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
URIS: Final = ("urn:", "http://", "https://")


def local_system(issuer: str) -> str:
    """System of the numbers that an issuer gives: its own URI, or one under ours."""
    return issuer if issuer.startswith(URIS) else f"{PATIENT_SYSTEM}{quote(issuer, safe='')}"


def accession_system(site: str) -> str:
    """System of a site's accession numbers; of a site that is not known, the one for all."""
    return f"{ACCESSION_SYSTEM}{quote(site, safe='')}" if site else ACCESSION_SYSTEM.rstrip(":")


def typed(code: str) -> Resource:
    """The type of an identifier (HL7 v2 table 0203)."""
    return {"coding": [{"system": IDENTIFIER_TYPE, "code": code}]}


def oid(uid: str) -> str:
    """A DICOM UID as a URI (FHIR R4 ImagingStudy, notes)."""
    return f"urn:oid:{uid}"


def compact(resource: Resource) -> Resource:
    """Without what is empty: FHIR knows neither empty strings nor empty lists. False and 0 stay."""
    return {n: v for n, v in resource.items() if v is not None and v != "" and v != [] and v != {}}
