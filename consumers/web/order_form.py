"""The clerk's form: what is typed or scanned → an order, and back. Pure.

A fault is the key of a message, and never holds what was typed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from consumers.web.exams import EXAMS, MODALITIES, PRIORITIES, SCHEME
from schemas.errors import Invalid
from schemas.identity import NATIONAL_ISSUER, NationalID
from schemas.names import ascii_digits
from schemas.orders import Order
from schemas.phone import checked, plain

_FOURTEEN: Final = re.compile(r"(?<![0-9])[0-9]{14}(?![0-9])")
_ARABIC: Final = re.compile(r"[\u0600-\u06ff]")
_PERSON: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?\Z")
TEMPORARY: Final = "TMP-"
"""In front of the number of somebody who has none yet: unconscious, newborn, a foreigner without papers at hand."""
OTHER: Final = "other"

Form = Mapping[str, str]


class Field(Protocol):
    """A field of the form, cut where no true one is so long."""

    def __call__(self, name: str, most: int = 64) -> str: ...


@dataclass(frozen=True)
class Identity:
    """What a national ID says; `fault` is empty, or the key of a message."""

    value: str = ""
    birth_date: str = ""
    """YYYY-MM-DD."""
    sex: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Read:
    """A form that was read: the order, if there is no fault."""

    order: Order
    faults: tuple[str, ...]


def scanned(text: str) -> str:
    """The 14 digits in what a keyboard or a scanner of cards has sent; else the text as it is."""
    plain = ascii_digits(text).strip()
    found = _FOURTEEN.search(plain)
    return found[0] if found else re.sub(r"[ -]", "", plain)


def identity(text: str) -> Identity:
    """What a national ID, typed or scanned, says of who has it."""
    value = scanned(text)
    if not value:
        return Identity()
    try:
        found = NationalID.parse(value)
    except Invalid:
        return Identity(value, fault="national-id")
    fault = "" if found.check_agrees else "check-digit"
    return Identity(found.value, found.birth_date.isoformat(), found.sex, fault)


def read(form: Form, *, order_id: str, site: str, zone: ZoneInfo, today: date, country: str = "20") -> Read:
    """The order that a form says. `country`: code of telephone numbers that name none."""

    def field(name: str, most: int = 64) -> str:
        return form.get(name, "").strip()[:most]

    faults: list[str] = []
    national, local = identity(field("national_id", 500)), field("local_id")
    born, sex = field("birth_date", 10) or national.birth_date, field("sex", 1) or national.sex
    if national.fault == "national-id":
        faults.append("national-id")
    elif national.value and (born, sex) != (national.birth_date, national.sex):
        faults.append("identity-differs")
    if born and not _is_past(born, today):
        faults.append("birth-date")
    name, latin = field("name"), field("name_latin")
    if not (name or latin):
        faults.append("name")
    phone = plain(field("phone", 30))
    try:
        dialled = phone and checked(phone, country)
        phone = phone if phone[:1] in ("", "0", "+") else dialled
    except Invalid:
        faults.append("phone")
    code, scheme, text, modality, body_part = _examined(field)
    if not text or not modality:
        faults.append("exam")
    requester = field("requester")
    if not _PERSON.match(requester):
        faults.append("requester")
    scheduled = _scheduled(field("date", 10), field("time", 5), zone)
    if not scheduled:
        faults.append("date")
    priority = field("priority", 16)
    order = Order(
        order_id=order_id,
        priority=priority if priority in PRIORITIES else "routine",
        site=site,
        modality=modality,
        body_part=body_part,
        procedure_code=code,
        procedure_scheme=scheme,
        procedure_text=text,
        reason=field("reason", 1000),
        scheduled=scheduled,
        requester=requester,
        referrer_name=field("referrer_name"),
        patient_name="=".join(n for n in (latin, name) if n),
        patient_id=national.value or local or TEMPORARY + order_id[-12:].upper(),
        issuer=NATIONAL_ISSUER if national.value else site,
        birth_date=born.replace("-", ""),
        sex=sex,
        phone=phone,
    )
    return Read(order, tuple(faults))


def _examined(field: Field) -> tuple[str, str, str, str, str]:
    """(code, scheme, words, modality, body part)."""
    exam = EXAMS.get(field("exam"))
    if exam is not None:
        return exam.code, SCHEME, exam.text(field("language", 2)), exam.modality, exam.body_part
    modality = field("modality", 16)
    body_part = field("body_part").upper().replace(" ", "")
    return "", "", field("procedure"), modality if modality in MODALITIES else "", body_part


def is_arabic(name: str) -> bool:
    """Whether a name is written in Arabic letters."""
    return bool(_ARABIC.search(name))


def written(order: Order, zone: ZoneInfo) -> dict[str, str]:
    """An order as the form shows it, to be changed."""
    day, _, clock = _local(order.scheduled, zone).partition("T")
    names = order.patient_name.split("=")
    born = order.birth_date
    national = order.issuer == NATIONAL_ISSUER
    known = order.procedure_scheme == SCHEME and order.procedure_code in EXAMS
    return {
        "national_id": order.patient_id if national else "",
        "local_id": "" if national else order.patient_id,
        "name": next((n for n in names if is_arabic(n)), "").replace("^", " "),
        "name_latin": next((n for n in names if not is_arabic(n)), "").replace("^", " "),
        "birth_date": f"{born[:4]}-{born[4:6]}-{born[6:]}" if len(born) == 8 else "",
        "sex": order.sex,
        "phone": order.phone,
        "exam": order.procedure_code if known else OTHER,
        "procedure": "" if known else order.procedure_text,
        "modality": order.modality,
        "body_part": order.body_part,
        "priority": order.priority,
        "date": day,
        "time": clock[:5],
        "referrer_name": order.referrer_name,
        "requester": order.requester,
        "reason": order.reason,
    }


def changed(order: Order, was: Order) -> Order:
    """What the form says, with what it does not ask for: status, numbers, device, and names as they were written."""
    same_name = order.patient_name.replace("^", " ") == was.patient_name.replace("^", " ")
    same_exam = (order.procedure_text, order.modality) == (was.procedure_text, was.modality)
    return replace(
        order,
        status=was.status,
        accession=was.accession,
        study_uid=was.study_uid,
        placer=was.placer,
        station_ae=was.station_ae,
        authored=was.authored,
        patient_name=was.patient_name if same_name else order.patient_name,
        issuer=was.issuer if order.patient_id == was.patient_id else order.issuer,
        procedure_code=was.procedure_code if same_exam else order.procedure_code,
        procedure_scheme=was.procedure_scheme if same_exam else order.procedure_scheme,
    )


def _is_past(text: str, today: date) -> bool:
    try:
        return date(1880, 1, 1) <= date.fromisoformat(text) <= today
    except ValueError:
        return False


def _scheduled(day: str, clock: str, zone: ZoneInfo) -> str:
    try:
        on = date.fromisoformat(day)
        return datetime.combine(on, time.fromisoformat(clock), zone).isoformat() if clock else on.isoformat()
    except ValueError:
        return ""


def _local(scheduled: str, zone: ZoneInfo) -> str:
    """YYYY-MM-DD, or YYYY-MM-DDTHH:MM where the site is."""
    if len(scheduled) <= len("2026-01-01"):
        return scheduled
    try:
        return datetime.fromisoformat(scheduled).astimezone(zone).strftime("%Y-%m-%dT%H:%M")
    except (ValueError, OverflowError):
        return ""
