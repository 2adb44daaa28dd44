"""The patient of a message (PID, MRG), and whether a study is of the same. Pure.

Names are never compared: spellings differ, and two people share one. What must agree is a number, and nothing may
contradict it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from producers.hl7 import values
from schemas.errors import Invalid
from schemas.hl7 import Message, Segment
from schemas.identity import KEY_STUDY, NATIONAL_ISSUER, NationalID, is_placeholder
from schemas.known_study import KnownStudy
from schemas.names import ascii_digits
from schemas.patient_keys import Keys

_SEXES: Final = {"M": "M", "F": "F", "O": "O", "A": "O"}
"""Administrative sex (table 0001) → DICOM's PatientSex; others are not known."""
_LOCAL: Final = ("MR", "PI", "PT", "PN", "AN", "")
"""Identifier types (table 0203) of a hospital's own numbers, the best first."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who a patient is, as a hospital says. Text that is not said is empty."""

    national: str = ""
    """National ID, if there is one whose form is right."""
    locals: tuple[str, ...] = ()
    """The hospital's own numbers, the usual one first."""
    name: str = ""
    birth_date: str = ""
    sex: str = ""
    phone: str = ""

    @property
    def best(self) -> tuple[str, str]:
        """(number, issuer): the national ID, else the first of the hospital's own with "" for the hospital."""
        if self.national:
            return self.national, NATIONAL_ISSUER
        return (self.locals[0], "") if self.locals else ("", "")

    def described_by(self, person: Person) -> Person:
        """The same numbers, with what another says of birth date and sex."""
        return replace(self, birth_date=person.birth_date, sex=person.sex)


def patient(message: Message) -> Person:
    """Whom PID names."""
    return _person(message.first("PID"))


def other(message: Message) -> Person:
    """Whom the second PID names, where a message has two (A24, A37)."""
    found = [s for s in message.segments if s.name == "PID"]
    return _person(found[1]) if len(found) > 1 else Person()


def _person(pid: Segment) -> Person:
    national, locals = _numbers(pid, (3, 2, 4), extra=pid.text(19))
    born, sex = values.day(pid.text(7)), _SEXES.get(pid.text(8).upper(), "")
    if national and not (born and sex):
        known = NationalID.parse(national)
        born, sex = born or known.birth_date.strftime("%Y%m%d"), sex or known.sex
    return Person(
        national=national,
        locals=locals,
        name=values.person_name(pid, 5),
        birth_date=born,
        sex=sex,
        phone=values.telephone(pid, 13) or values.telephone(pid, 14),
    )


def merged(message: Message) -> Person:
    """Whose number ends: MRG-1, and MRG-4 of older versions. It says no more than numbers."""
    mrg = message.first("MRG")
    national, locals = _numbers(mrg, (1, 4), extra="")
    return Person(national=national, locals=locals)


def _numbers(segment: Segment, fields: tuple[int, ...], extra: str) -> tuple[str, tuple[str, ...]]:
    national, ranked = "", list[tuple[int, str]]()
    for field in fields:
        for repetition in range(1, segment.repetitions(field) + 1):
            number = normal(segment.text(field, 1, repetition=repetition))
            kind = segment.text(field, 5, repetition=repetition).upper()
            if is_placeholder(number):
                continue
            if _is_national(number) and kind not in ("MR", "PI"):
                national = national or number
            elif kind in _LOCAL:
                ranked.append((_LOCAL.index(kind), number))
    if not national and _is_national(normal(extra)):
        national = normal(extra)
    return national, tuple(dict.fromkeys(number for _, number in sorted(ranked, key=lambda r: r[0])))


def _is_national(number: str) -> bool:
    try:
        NationalID.parse(number)
    except Invalid:
        return False
    return True


def normal(number: str) -> str:
    """A number as it is compared."""
    return ascii_digits(number).strip().upper()


def files(person: Person, keys: Keys, *, issuer: str) -> list[str]:
    """Keys of the files of a person's numbers, the best first; none for a number that says nothing. `issuer`: of the
    hospital's own.
    """
    made = [
        keys.of(patient_id=number, issuer=issuer, birth_date=person.birth_date, sex=person.sex, study_uid="")
        for number in (person.national, *person.locals)
        if number
    ]
    return list(dict.fromkeys(k.value for k in made if k.basis != KEY_STUDY))


def disagreement(person: Person, study: KnownStudy, own: Collection[str] = ()) -> str:
    """Why a study is not, or not surely, of this person: a code for people; "" where it is. `own`: keys of the person's
    files; one that people have joined to the study's says as much as its number.
    """
    numbers = {person.national, *person.locals} - {""}
    if not numbers:
        return "patient-missing"
    if study.files.isdisjoint(own):
        if is_placeholder(study.patient_id):
            return "patient-unknown"
        if normal(study.patient_id) not in numbers:
            return "patient-number"
    birth_date, sex = study.birth_date, study.sex
    if person.birth_date and birth_date and person.birth_date != birth_date:
        return "patient-birth-date"
    if person.sex in ("M", "F") and sex in ("M", "F") and person.sex != sex:
        return "patient-sex"
    return ""
