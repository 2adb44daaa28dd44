"""Which studies a result is of: by the site and its accession number, else by the Study Instance UID. Pure.

A result is filed only where everything that is said agrees: else it waits, and people see it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from producers.hl7.person import Person, disagreement
from schemas.known_study import KnownStudy

STUDIES_MAX = 16


@dataclass(frozen=True)
class Found:
    """The studies that a result is of."""

    study_uids: tuple[str, ...]


@dataclass(frozen=True)
class Waits:
    """Why it is of none: `study-unknown` ends by itself when the study arrives, others by a person."""

    reason: str


def match(
    person: Person,
    site: str,
    by_accession: Sequence[KnownStudy],
    by_uid: Sequence[KnownStudy],
    named: Sequence[str],
    own: Collection[str] = (),
) -> Found | Waits:
    """`by_accession`: studies with the accession number, of whatever site; `by_uid`: those of the UIDs `named`; `own`:
    keys of the person's files.
    """
    ours = [s for s in by_accession if site in s.sites]
    known = {s.study_uid for s in by_uid}
    if ours and known and not known & {s.study_uid for s in ours}:
        return Waits("studies-disagree")
    if not ours and known != set(named):
        return Waits("study-unknown")  # one of those named has not arrived
    studies = ours or list(by_uid)
    if not studies:
        return Waits("study-unknown")
    if len(studies) > STUDIES_MAX:
        return Waits("studies-many")
    for study in studies:
        if why := disagreement(person, study, own):
            return Waits(why)
    return Found(tuple(s.study_uid for s in studies))
