"""Under which patients a record has something of ours, in `sijil_state`: written before it is filed there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from consumers.delivery.ehr.bundle import Subject
from infra import clock
from infra.ports import Select, Tables
from schemas.tables import Delete, Upsert

TABLE = "delivery_filed"


@dataclass(frozen=True)
class Filed:
    """A study or report that the record has, or may have, under a patient."""

    subject: str
    patient: Subject
    version: int
    status: str


class Filing:
    """What one destination has. Every call raises Transient."""

    def __init__(self, state: Tables, destination: str) -> None:
        self._state, self._destination = state, destination

    async def of(self, subjects: Sequence[str]) -> list[Filed]:
        """What it has of these, under whomever."""
        queries = [Select(TABLE, {"destination": self._destination, "subject": s}) for s in subjects]
        answers = await self._state.select_many(queries) if queries else []
        return [
            Filed(
                r["subject"],
                Subject(r["patient_key"], r["patient_system"], r["patient_value"]),
                r["version"] or 0,
                r["status"] or "",
            )
            for rows in answers
            for r in rows
        ]

    async def note(self, filed: Iterable[Filed]) -> None:
        """It has these, or will in a moment."""
        now = clock.now()
        await self._state.apply(
            [
                Upsert(
                    TABLE,
                    self._key(f),
                    {
                        "patient_system": f.patient.system,
                        "patient_value": f.patient.value,
                        "version": f.version,
                        "status": f.status,
                        "filed": now,
                    },
                    int(now.timestamp() * 1e6),
                )
                for f in filed
            ]
        )

    async def forget(self, filed: Iterable[Filed]) -> None:
        """They were taken back."""
        now = int(clock.now().timestamp() * 1e6)
        await self._state.apply([Delete(TABLE, self._key(f), now) for f in filed])

    def _key(self, filed: Filed) -> dict[str, str]:
        return {
            "destination": self._destination,
            "subject": filed.subject,
            "patient_key": filed.patient.patient_key,
        }
