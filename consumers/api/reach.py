"""What somebody may see just now, as values: sites, patients, studies. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """A study is within it if a site of theirs sent it, or its patient or it itself is named."""

    whole: bool = False
    sites: frozenset[str] = frozenset()
    patients: frozenset[str] = frozenset()
    studies: frozenset[str] = frozenset()

    def shows(self, study_uid: str, patient_key: str, sites: Iterable[str]) -> bool:
        """Whether a study is within."""
        return (
            self.whole
            or study_uid in self.studies
            or bool(patient_key and patient_key in self.patients)
            or not self.sites.isdisjoint(sites)
        )

    def names(self, study_uid: str, patient_key: str) -> bool:
        """Whether it is within whatever sites sent it."""
        return self.shows(study_uid, patient_key, ())


WHOLE = Reach(whole=True)
