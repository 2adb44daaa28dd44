"""ORM^O01 and OMI^O23: what a hospital's system orders (HL7 v2.5.1 ch. 4.4, 4.5). Pure.

| ORC-1 (table 0119) | the order |
|---|---|
| NW, XO, XX, RO, SN | is placed, or has these contents now |
| CA, OC, CR, DC, OD | is taken back |
| HD, RL | is on hold; goes on |
| SC with ORC-5 CM; CA, DC, RP; HD; IP, SC, A | is completed; taken back; on hold; goes on |
| others | refused |

Several OBR under one ORC are an order each, told apart by their own numbers (OBR-2, OBR-3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from producers.hl7 import values
from producers.hl7.person import Person
from schemas.errors import Invalid
from schemas.hl7 import Message, Segment
from schemas.identity import derived_id
from schemas.orders import Order

ORDERS_MAX: Final = 64
CONTROLS: Final[Mapping[str, str]] = {
    **dict.fromkeys("NW XO XX RO SN".split(), "active"),
    **dict.fromkeys("CA OC CR DC OD".split(), "revoked"),
    "HD": "on-hold",
    "RL": "active",
}
"""ORC-1 → request-status."""
_STATES: Final[Mapping[str, str]] = {
    "CM": "completed",
    "CA": "revoked",
    "DC": "revoked",
    "RP": "revoked",
    "HD": "on-hold",
    "A": "active",
    "IP": "active",
    "SC": "active",
}
"""ORC-5 (table 0038), where ORC-1 says that the state has changed."""
_PRIORITIES: Final[Mapping[str, str]] = {"S": "stat", "A": "asap", "P": "urgent", "T": "urgent", "C": "urgent"}
"""Table 0027 (TQ1-9, ORC-7.6, OBR-5, OBR-27.6) → FHIR request-priority; others are routine."""
_MODALITIES: Final = frozenset("BMD CR CT DX ES IO IVUS MG MR NM OPT PT PX RF RG US XA OT".split())
_ACCESSION_MAX: Final = 16


@dataclass(frozen=True)
class Asked:
    """An order of a message. `order.status`: what it is to be."""

    order_id: str
    order: Order
    cancels: bool


def orders(message: Message, person: Person, *, site: str, issuer: str, zone: tzinfo) -> list[Asked]:
    """The orders of a message; times without a zone are of `zone`. Raises Invalid(`hl7-…`), which quotes nothing."""
    groups = _groups(message)
    if not groups:
        raise Invalid("hl7-obr-missing", "an order needs an ORC")
    if len(groups) > ORDERS_MAX:
        raise Invalid("hl7-results-many", f"a message has at most {ORDERS_MAX} orders")
    number, owner = person.best
    if not number or not person.name:
        raise Invalid("hl7-patient-missing", "PID-3 and PID-5 say who the patient is")
    shared = [s for s in message.segments if s.name in ("ZDS", "IPC")] if len(groups) == 1 else []
    return [_asked([*group, *shared], person, (number, owner or issuer), site, zone) for group in groups]


def _groups(message: Message) -> list[list[Segment]]:
    """An ORC and its OBR each. Raises Invalid where several OBR of one ORC cannot be told apart."""
    found: list[list[Segment]] = []
    orc: Segment | None = None
    numbers: set[str] = set()
    for group in message.groups("ORC", "OBR"):
        obr = _first(group, "OBR")
        if group[0].name == "ORC":
            orc, numbers = group[0], {_number(group[0], obr)}
            found.append(group)
        elif orc is not None:
            number = obr.text(2) or obr.text(3)
            if not number or number in numbers:
                raise Invalid(
                    "hl7-number-missing", "of several OBR under one ORC each needs a number of its own in OBR-2"
                )
            numbers.add(number)
            # What stands in the ORC holds for all of them, but not the number
            raw = (orc.raw + ("",) * 3)[: max(3, len(orc.raw))]
            found.append([Segment("ORC", (raw[0], obr.field(2), obr.field(3), *raw[3:]), orc.separators), *group])
    return found


def _number(orc: Segment, obr: Segment) -> str:
    return orc.text(2) or obr.text(2) or orc.text(3) or obr.text(3)


def _asked(group: Sequence[Segment], person: Person, number: tuple[str, str], site: str, zone: tzinfo) -> Asked:
    orc, obr, tq1, ipc, zds = (_first(group, name) for name in ("ORC", "OBR", "TQ1", "IPC", "ZDS"))
    control = orc.text(1).upper()
    status = _STATES.get(orc.text(5).upper(), "") if control == "SC" else CONTROLS.get(control, "")
    if not status:
        raise Invalid("hl7-order-control", "ORC-1 is none of NW, SN, XO, CA, OC, CR, DC, HD, RL, or SC with ORC-5")
    placer, filler = orc.text(2) or obr.text(2), orc.text(3) or obr.text(3)
    if not (placer or filler):
        raise Invalid("hl7-number-missing", "ORC-2 or ORC-3 names the order")
    system, code, text = values.coded(obr, 4)
    cancels = status == "revoked"
    if not cancels and not (code or text):
        raise Invalid("hl7-procedure-missing", "OBR-4 says what is ordered")
    accessions = (obr.text(18), ipc.text(1), obr.text(20), filler)
    modality = next((m for m in (ipc.text(5), obr.text(24)) if m in _MODALITIES), "")
    priority = tq1.text(9) or orc.text(7, 6) or obr.text(5) or obr.text(27, 6)
    name = values.provider_name(obr, 16) or values.provider_name(orc, 12)
    order = Order(
        status=status,
        priority=_PRIORITIES.get(priority[:1], "routine"),
        site=site,
        accession=next((a for a in accessions if 0 < len(a) <= _ACCESSION_MAX and "\\" not in a), ""),
        study_uid=zds.text(1) or ipc.text(3),
        placer=placer or filler,
        modality=modality,
        station_ae=ipc.text(9),
        body_part=obr.text(15, 4),
        procedure_code=code,
        procedure_scheme=system,
        procedure_text=text or code,
        reason=obr.text(31, 2) or obr.text(31) or obr.text(13),
        scheduled=_when((tq1.text(7), obr.text(36), orc.text(7, 4), obr.text(27, 4)), zone),
        authored=values.moment(orc.text(9), zone),
        referrer_name=name,
        patient_name=person.name,
        patient_id=number[0],
        issuer=number[1],
        birth_date=person.birth_date,
        sex=person.sex,
        phone=person.phone,
    )
    return Asked(order_id_of(site, placer or filler), order, cancels)


def order_id_of(site: str, number: str) -> str:
    """The id of the order that a site's system knows by this number."""
    return derived_id("his-order", site, number)


def _first(group: Sequence[Segment], name: str) -> Segment:
    return next((s for s in group if s.name == name), Segment(name, (), group[0].separators))


def _when(candidates: Sequence[str], zone: tzinfo) -> str:
    """FHIR dateTime: a moment, else a day."""
    for text in candidates:
        if moment := values.moment(text, zone):
            return moment
        if day := values.day(text):
            return f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return ""
