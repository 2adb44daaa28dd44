"""Who looked at a file, in plain words: what one person did within minutes is one line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from consumers.web import show
from consumers.web.language import Language

TOGETHER = timedelta(minutes=10)
GRANTED = "granted"


@dataclass(frozen=True)
class Look:
    """One line."""

    occurred: str
    outcome: str
    sentence: str
    detail: str


@dataclass
class _Visit:
    actor: str
    outcome: str
    purpose: str
    role: str
    occurred: str
    """Of the latest access in it: lists are newest first."""
    earliest: str
    reason: str
    actions: dict[str, None]
    studies: dict[str, None]


def looks(rows: Iterable[Mapping[str, Any]], language: Language) -> list[Look]:
    """Of rows of a patient's trail, newest first."""
    visits: list[_Visit] = []
    for row in rows:
        visit = next((v for v in reversed(visits[-20:]) if _is_of(v, row)), None)
        if visit is None:
            visit = _Visit(
                row["actor"],
                row["outcome"],
                row["purpose"],
                row["role"],
                row["occurred"],
                row["occurred"],
                row.get("reason") or "",
                {},
                {},
            )
            visits.append(visit)
        visit.earliest = row["occurred"]
        if row.get("action"):
            visit.actions[language.or_code("action", row["action"])] = None
        if row.get("study_uid"):
            visit.studies[row["study_uid"]] = None
    return [_look(v, language) for v in visits]


def _is_of(visit: _Visit, row: Mapping[str, Any]) -> bool:
    if (visit.actor, visit.outcome, visit.purpose) != (row["actor"], row["outcome"], row["purpose"]):
        return False
    latest, now = show.moment(visit.earliest), show.moment(row["occurred"])
    return latest is not None and now is not None and latest - now <= TOGETHER


def _look(visit: _Visit, language: Language) -> Look:
    kind = visit.outcome if f"looked.{visit.outcome}" in language.messages else GRANTED
    sentence = language.text(f"looked.{kind}", who=language.or_code("role-of", visit.role))
    parts: list[str] = [_listed(list(visit.actions), language)] if visit.outcome == GRANTED and visit.actions else []
    parts.append(language.or_code("purpose", visit.purpose))
    if visit.reason:
        parts.append(language.or_code("reason", visit.reason))
    if len(visit.studies) > 1:
        parts.append(language.text("looked.studies", count=language.number(len(visit.studies))))
    return Look(visit.occurred, visit.outcome, sentence, " · ".join(parts))


def _listed(words: Sequence[str], language: Language) -> str:
    return f"{language.comma} ".join(words)
