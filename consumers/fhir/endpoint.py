"""Where images are retrieved from, as FHIR R4 Endpoint (hl7.org/fhir/R4/endpoint.html). Pure."""

from __future__ import annotations

from typing import Final

from consumers.fhir.codes import CONNECTION_TYPE, Resource

ID: Final = "dicomweb"
REFERENCE: Final = f"Endpoint/{ID}"


def endpoint(address: str) -> Resource:
    """The archive's DICOMweb service; `address` is its base URL, `<address>/studies/<UID>` a study (PS3.18 §10.4)."""
    return {
        "resourceType": "Endpoint",
        "id": ID,
        "status": "active",
        "connectionType": {"system": CONNECTION_TYPE, "code": "dicom-wado-rs", "display": "DICOM WADO-RS"},
        "name": "Sijil DICOMweb",
        "payloadType": [{"text": "DICOM studies by WADO-RS"}],
        "payloadMimeType": ["application/dicom", "application/dicom+json", "image/jpeg"],
        "address": address,
    }
