"""order.* → orders in all versions, and as they are now by patient, accession number, day and who refers.

A version that has moved (another day, patient, accession number or referrer) takes its row out of where it was: the
document of the version before says where that is. study.expected, .parted → which studies and orders belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import Invalid
from schemas.events import OrderCancelled, OrderChanged, OrderPlaced, StudyExpected, StudyParted
from schemas.identity import NATIONAL_ISSUER
from schemas.orders import Order
from schemas.patient_keys import Keys
from schemas.tables import Delete, Upsert, Write
from streams import milestones
from streams.facts import Fact

TEXT_MAX = 1024
"""Characters of a column; the whole is in the document."""
KEY_MAX = 64
NUMBERED = "orders_by_accession"
JOINED = ("orders_by_study", "studies_by_order")


@dataclass(frozen=True, slots=True)
class OrderMaterial:
    """What the documents say: of this version, and of the one before."""

    now: Order
    before: Order | None = None


def stated(
    fact: Fact, event: OrderPlaced | OrderChanged | OrderCancelled, material: OrderMaterial, keys: Keys
) -> list[Write]:
    """Each event says all that holds. Raises Invalid(`order-document`) for a document of another site or study."""
    now = material.now
    if now.site != event.site or now.study_uid != event.study_uid:
        raise Invalid("order-document", "the document is not that of its event")
    columns = _columns(event, now, keys)
    writes: list[Write] = [
        Upsert(
            "orders",
            {"order_id": event.order_id, "version": event.version},
            {n: v for n, v in columns.items() if n != "version"},
            fact.offset,
        )
    ]
    rows = _rows(event.order_id, columns)
    if material.before is not None:
        was = _columns(event, material.before, keys) | {"day": event.day_before}
        left = _rows(event.order_id, was)
        writes += [Delete(t, key, fact.offset) for t, key in left.items() if rows.get(t) != key]
        if NUMBERED in left and rows.get(NUMBERED) != left[NUMBERED]:
            # It stays on record with its version: what is known of a number only ever grows (streams.to_read)
            gone = {"version": event.version, "status": ""}
            writes.append(Upsert("priorities_by_accession", left[NUMBERED], gone, fact.offset))
        left_phone = _phone(was, material.before)
        if left_phone != _phone(columns, now):
            writes += [Delete("patients_by_phone", key, fact.stamp) for key in left_phone]
    for key in _phone(columns, now):
        like = {"patient_name": columns["patient_name"], "birth": now.birth_date, "sex": now.sex, "stamp": fact.stamp}
        writes.append(Upsert("patients_by_phone", key, like, fact.stamp))
    for table, key in rows.items():
        writes.append(Upsert(table, key, {n: v for n, v in columns.items() if n not in key}, fact.offset))
    if NUMBERED in rows:
        urgent = {n: columns[n] for n in ("version", "status", "priority", "study_uid", "patient_key", "authored")}
        writes.append(Upsert("priorities_by_accession", rows[NUMBERED], urgent, fact.offset))
    return writes + milestones.of_order(fact, event)


def _phone(columns: Mapping[str, Any], order: Order) -> list[dict[str, str]]:
    """Where the patient of an order is listed by telephone number, if anywhere; what was said last of both holds."""
    if not (order.phone and order.patient_name and columns["patient_key"]):
        return []
    return [{"phone": order.phone[:KEY_MAX], "patient_key": columns["patient_key"]}]


def _rows(order_id: str, columns: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Table → key of an order's row there."""
    where = {
        "orders_by_patient": ("patient_key",),
        NUMBERED: ("site", "accession"),
        "orders_by_site_day": ("site", "day"),
        "orders_by_referrer": ("requester",),
    }
    keys = {t: {n: columns[n] for n in names} for t, names in where.items()}
    return {t: {**key, "order_id": order_id} for t, key in keys.items() if all(key.values())}


def _columns(event: OrderPlaced | OrderChanged | OrderCancelled, order: Order, keys: Keys) -> dict[str, Any]:
    patient = keys.of(
        patient_id=order.patient_id,
        issuer=issuer_of(order.issuer, event.site),
        birth_date=order.birth_date,
        sex=order.sex,
        study_uid=order.study_uid,
    )
    read = {
        "placer": order.placer,
        "patient_name": order.patient_name,
        "patient_id": order.patient_id,
        "issuer": order.issuer or event.site,
        "birth_date": order.birth_date,
        "sex": order.sex,
        "phone": order.phone,
        "modality": order.modality,
        "station_ae": order.station_ae,
        "body_part": order.body_part,
        "procedure_code": order.procedure_code,
        "procedure_scheme": order.procedure_scheme,
        "procedure_text": order.procedure_text,
        "reason": order.reason,
        "referrer_name": order.referrer_name,
        "authored": order.authored,
    }
    return {
        "version": event.version,
        "status": event.status,
        "site": event.site,
        "day": event.day,
        "scheduled": event.scheduled,
        "priority": event.priority,
        "accession": order.accession[:KEY_MAX],
        "study_uid": order.study_uid,
        "patient_key": patient.value,
        **{name: value[:TEXT_MAX] for name, value in read.items()},
        "requester": order.requester,
        "recorded": event.recorded,
        "stated_by": event.actor,
        "bucket": event.bucket,
        "document_key": event.document_key,
        "document_size": event.document_size,
        "document_sha256": event.document_sha256,
    }


def issuer_of(said: str, site: str) -> str:
    """Whose a patient's number is: a national ID that does not agree with birth date and sex is a number of the site's
    (schemas.identity).
    """
    return site if said in ("", NATIONAL_ISSUER) else said


def expected(fact: Fact, event: StudyExpected) -> list[Write]:
    """A device's report of its work alone names no order: nothing to list."""
    if event.order_id is None:
        return []
    key = {"study_uid": event.study_uid, "order_id": event.order_id}
    columns = {"basis": event.basis, "site": event.site, "recorded": event.recorded}
    return [Upsert(table, key, columns, fact.offset) for table in JOINED]


def parted(fact: Fact, event: StudyParted) -> list[Write]:
    """What was said before of the two holds no longer."""
    key = {"study_uid": event.study_uid, "order_id": event.order_id}
    return [Delete(table, key, fact.offset) for table in JOINED]
