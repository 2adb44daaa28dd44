"""The coded conclusion of a report as a radiologist types it: one line, `J18.9 pneumonia; 233604007`. Pure.

A code is taken as given: no list of codes is kept here. What has the shape of no code stays a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from schemas.names import ascii_digits
from schemas.report_content import Coded

ICD10: Final = "http://hl7.org/fhir/sid/icd-10"
SNOMED: Final = "http://snomed.info/sct"
NAMES: Final = {ICD10: "ICD-10", SNOMED: "SNOMED CT"}
CODES_MAX: Final = 20

_BETWEEN: Final = re.compile(r"[;؛\n]")
_SHAPES: Final = (
    (ICD10, re.compile(r"[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?", re.IGNORECASE)),
    (SNOMED, re.compile(r"[1-9][0-9]{5,17}")),
)


def coded(line: str, before: Iterable[Coded] = ()) -> tuple[Coded, ...]:
    """What a line says. `before`: conclusions of the version that it goes on from; those that the line repeats stay as
    they were, also of other systems.
    """
    known = {shown(c): c for c in before}
    parts = [" ".join(part.split()) for part in _BETWEEN.split(line)]
    return tuple(dict.fromkeys(known.get(part) or _one(part) for part in parts if part))[:CODES_MAX]


def _one(part: str) -> Coded:
    first, _, rest = part.partition(" ")
    code = ascii_digits(first)
    for system, shape in _SHAPES:
        if shape.fullmatch(code):
            # SNOMED CT writes `233604007 |Pneumonia|`
            return Coded(text=rest.strip(" |()-"), system=system, code=code.upper())
    return Coded(text=part)


def shown(said: Coded) -> str:
    """One conclusion as it is typed."""
    return " ".join(" ".join(filter(None, (said.code, said.text))).split())


def line_of(said: Iterable[Coded]) -> str:
    """The line that says them."""
    return "; ".join(map(shown, said))
