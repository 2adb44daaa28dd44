"""What is known of a study to whoever has something to file under it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KnownStudy:
    """A study with everything that people corrected. Text that it does not have is empty; it is never on the log."""

    study_uid: str
    sites: frozenset[str]
    """That sent any of it."""
    patient_id: str
    birth_date: str
    """YYYYMMDD."""
    sex: str
    files: frozenset[str] = frozenset()
    """Patient keys of the file it is in, and of those that people joined to it."""
