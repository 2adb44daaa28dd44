"""A study as FHIR R4 ImagingStudy (hl7.org/fhir/R4/imagingstudy.html). Pure.

Instances are not listed: a CT has thousands, and the study's DICOMweb endpoint gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final

import msgspec

from consumers.fhir import codes
from consumers.fhir.codes import Resource, compact
from consumers.fhir.moments import date_time, instant, zone_of
from consumers.fhir.person_name import name_text
from schemas.answers import TIMEZONE

NO_MODALITY: Final = "OT"
"""PS3.3 §C.7.3.1.1.1 "Other": a series must have a modality in FHIR."""


class _Header(msgspec.Struct, rename={"timezone": TIMEZONE}):
    timezone: Any = None


_header = msgspec.json.Decoder(_Header)


def imaging_study(
    study: Mapping[str, Any],
    series: Sequence[Mapping[str, Any]],
    *,
    subject: Resource,
    endpoint: Resource,
    zone: tzinfo,
    based_on: Sequence[Resource] = (),
    status: str = "",
) -> Resource:
    """Of a row of `studies` and those of `series`, with what people corrected laid over both.

    `subject`, `endpoint`, `based_on` are References, so that they may be conditional in a transaction. `zone`: of times
    that say none. `status`: `available` if there is an instance, else `registered`, unless said.
    """
    uid = study["study_uid"]
    at = zone_of(_offset(study["attributes"]), zone)
    shown = bool(study["instance_count"])
    referrer = name_text(study["referring"] or "")
    return compact(
        {
            "resourceType": "ImagingStudy",
            "id": uid,
            "meta": {"lastUpdated": instant(study["last_arrival"])} if study["last_arrival"] else {},
            "identifier": identifiers(study),
            "status": status or ("available" if shown else "registered"),
            "modality": [_modality(m) for m in sorted(study["modalities"] or ())],
            "subject": subject,
            "started": date_time(study["study_date"] or "", study["study_time"] or "", at),
            "basedOn": list(based_on),
            "referrer": {"display": referrer} if referrer else {},
            "endpoint": [endpoint] if shown else [],
            "numberOfSeries": study["series_count"],
            "numberOfInstances": study["instance_count"],
            "description": (study["description"] or "").strip(),
            "series": [_series(s) for s in sorted(series, key=_order)],
        }
    )


def identifiers(study: Mapping[str, Any]) -> list[Resource]:
    """Its UID, and its accession number under the site that sent it, where one site did."""
    found: list[Resource] = [{"use": "official", "system": codes.DICOM_UID, "value": codes.oid(study["study_uid"])}]
    if accession := (study["accession"] or "").strip():
        sites = sorted(study["sites"] or ())
        system = codes.accession_system(sites[0] if len(sites) == 1 else "")
        found.append({"use": "usual", "type": codes.typed("ACSN"), "system": system, "value": accession})
    return found


def _series(row: Mapping[str, Any]) -> Resource:
    number = row["series_number"]
    part = (row["body_part"] or "").strip()
    return compact(
        {
            "uid": row["series_uid"],
            "number": number if number is not None and number >= 0 else None,
            "modality": _modality(row["modality"] or NO_MODALITY),
            "description": (row["description"] or "").strip(),
            "numberOfInstances": row["instance_count"],
            "bodySite": {"display": part} if part else {},
        }
    )


def _order(row: Mapping[str, Any]) -> tuple[int, str]:
    number = row["series_number"]
    return (number if number is not None else 1 << 31, row["series_uid"])


def _modality(code: str) -> Resource:
    return {"system": codes.DCM, "code": code}


def _offset(header: str | None) -> str:
    element = _header.decode(header or "{}").timezone
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if values else ""
