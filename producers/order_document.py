"""An order as FHIR R4 ServiceRequest JSON: what of it the archive must understand, what it adds, and when two are the
same. Pure.

Everything else in the document is kept as it came, numbers to their last digit. No message holds text of the order.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from schemas.errors import Invalid
from schemas.identity import check_uid, derived_id
from schemas.lifecycle import ORDER_TRANSITIONS
from schemas.orders import (
    ACCESSION_SYSTEM,
    IDENTIFIER_TYPES,
    UID_SYSTEM,
    Order,
    contained_patient,
    read,
)

STATUSES: Final = frozenset(ORDER_TRANSITIONS) - {""}
PRIORITIES: Final = frozenset({"routine", "urgent", "asap", "stat"})
ACCESSION_MAX: Final = 16
"""Characters of SH (PS3.5 §6.2)."""
_SH: Final = re.compile(r"[^\\\x00-\x1f\x7f]+\Z")
_SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_CS: Final = re.compile(r"[A-Z0-9_]{1,16}\Z")
_AE: Final = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}\Z")
_PARTIAL: Final = re.compile(r"[0-9]{4}(-[0-9]{2})?\Z")
_IDENTIFIER_MAX: Final = 64
"""Characters of LO: patient's number, and of the texts that a worklist sends."""
_OF_THE_ARCHIVE: Final = ("id", "meta")

_decoder = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number", order="deterministic")


@dataclass(frozen=True)
class Sent:
    """A document that says what an order must say."""

    order: Order
    resource: Mapping[str, Any]


@dataclass(frozen=True)
class Start:
    """When it is to be done, where the site is."""

    day: str
    """YYYYMMDD."""
    moment: str
    """YYYYMMDDHHMMSS; empty: any time of the day."""


def parse(document: bytes) -> Sent:
    """Raises Invalid: `order-json`, `order-type`, `order-intent`, `order-status`, `order-priority`, `order-code`,
    `order-patient`, `order-modality`, `order-accession`, `order-site`, `order-station`, `order-time`, `uid-…`.
    """
    try:
        resource = _decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("order-json", "the order is no JSON object") from e
    order = read(resource)
    for reason, broken, why in _rules(resource, order):
        if broken:
            raise Invalid(reason, why)
    if order.study_uid:
        check_uid(order.study_uid)
    for time in (order.scheduled, order.authored):
        start_of(time, ZoneInfo("UTC"))
    return Sent(order, resource)


def _rules(resource: Mapping[str, Any], order: Order) -> tuple[tuple[str, bool, str], ...]:
    patient = contained_patient(resource)
    return (
        ("order-type", resource.get("resourceType") != "ServiceRequest", "resourceType is not ServiceRequest"),
        ("order-intent", resource.get("intent") != "order", "intent is not order"),
        (
            "order-status",
            order.status not in STATUSES,
            "status is none of FHIR R4 request-status that the archive keeps",
        ),
        ("order-priority", order.priority not in PRIORITIES, "priority is routine, urgent, asap or stat"),
        ("order-code", not (order.procedure_code or order.procedure_text), "code has neither a code nor a text"),
        (
            "order-patient",
            not patient or not (order.patient_name and order.patient_id),
            "a contained Patient that subject names has a name and an identifier",
        ),
        (
            "order-patient",
            len(order.patient_id) > _IDENTIFIER_MAX or bool(order.birth_date and not _is_day(order.birth_date)),
            "the Patient's identifier has at most 64 characters, birthDate is a day",
        ),
        (
            "order-modality",
            bool(order.modality and not _CS.match(order.modality)),
            "the modality is no DICOM code (CS)",
        ),
        (
            "order-accession",
            bool(order.accession) and not (len(order.accession) <= ACCESSION_MAX and _SH.match(order.accession)),
            "an accession number has at most 16 characters, no backslash and no control character (SH)",
        ),
        ("order-site", bool(order.site and not _SITE.match(order.site)), "locationReference is no site of the archive"),
        ("order-station", bool(order.station_ae and not _AE.match(order.station_ae)), "the station is no AE title"),
    )


def order_id(sent: Sent, asked: str, site: str) -> str:
    """The id that a document asks for, by header or by its own `id`, else that of its placer's number, else of its
    accession number; "" for none of these. Ids that are no UUID are mapped to one, the same each time.
    """
    own = asked or sent.resource.get("id", "")
    if own:
        return _as_uuid(own) if isinstance(own, str) else ""
    if sent.order.placer:
        return derived_id("order", site, "placer", sent.order.placer)
    if sent.order.accession:
        # One accession number may stand for several procedures of one visit
        return derived_id("order", site, "accession", sent.order.accession, sent.order.procedure_code)
    return ""


def study_uid_of(order_id: str) -> str:
    """The Study Instance UID of an order that names none: made of its id (PS3.5 §B.2)."""
    return f"2.25.{uuid.UUID(order_id).int}"


def accession_of(order_id: str, day: str, attempt: int) -> str:
    """A number for an order that has none: YYMMDD and six digits, so that a keyboard of any language types it. The same
    arguments give the same; `attempt` counts those that others have.
    """
    number = uuid.UUID(derived_id("accession", order_id, attempt)).int % 1_000_000
    return f"{day[2:]}{number:06d}"


def completed(
    sent: Sent, *, order_id: str, version: int, site: str, accession: str, study_uid: str, authored: str, recorded: str
) -> bytes:
    """The document as the archive keeps it: what it adds is id, version and when that was, and
    where the document has none: site, accession number, Study UID and time of the order. Same arguments, same bytes.
    """
    resource, order = sent.resource, sent.order
    meta = resource.get("meta")
    identifiers = list(resource.get("identifier") or [])
    if not order.accession:
        coding = {"system": IDENTIFIER_TYPES, "code": "ACSN"}
        identifiers.append({"type": {"coding": [coding]}, "system": ACCESSION_SYSTEM + site, "value": accession})
    if not order.study_uid:
        identifiers.append({"system": UID_SYSTEM, "value": f"urn:oid:{study_uid}"})
    places = list(resource.get("locationReference") or [])
    return _encoder.encode(
        {
            **resource,
            "id": order_id,
            "meta": {**(meta if isinstance(meta, dict) else {}), "versionId": str(version), "lastUpdated": recorded},
            "identifier": identifiers,
            "authoredOn": order.authored or authored,
            "locationReference": places if order.site else [*places, {"reference": f"Location/{site}"}],
        }
    )


def same_content(one: bytes, other: bytes) -> bool:
    """Whether two documents as the archive keeps them say the same; when it took them in is not said."""
    first, second = (_decoder.decode(d) for d in (one, other))
    return _said(first) == _said(second)


def with_status(sent: Sent, status: str) -> Sent:
    """The same in another status."""
    return Sent(replace(sent.order, status=status), {**sent.resource, "status": status})


def recorded(sent: Sent) -> str:
    """When the archive took a version in."""
    meta = sent.resource.get("meta")
    found = meta.get("lastUpdated") if isinstance(meta, dict) else None
    return found if isinstance(found, str) else ""


def start_of(scheduled: str, zone: ZoneInfo) -> Start | None:
    """What a FHIR dateTime means where the site is; None for none. Raises Invalid(`order-time`)."""
    if not scheduled:
        return None
    try:
        if len(scheduled) == len("2026-01-01"):
            return Start(date.fromisoformat(scheduled).strftime("%Y%m%d"), "")
        moment = datetime.fromisoformat(scheduled)
        if moment.tzinfo is None or _PARTIAL.match(scheduled):
            raise ValueError
        local = moment.astimezone(zone)
    except (ValueError, OverflowError) as e:
        raise Invalid("order-time", "occurrence and authoredOn are a day, or a moment with a time zone") from e
    return Start(local.strftime("%Y%m%d"), local.strftime("%Y%m%d%H%M%S"))


def _said(resource: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in resource.items() if name not in _OF_THE_ARCHIVE}


def _is_day(text: str) -> bool:
    try:
        return len(text) == 8 and bool(datetime.strptime(text + "Z", "%Y%m%d%z"))
    except ValueError:
        return False


def _as_uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return derived_id("order", text)
