"""What is known of studies, for results that come in: `infra.known_studies` on the read models, with corrections."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.api import queries
from consumers.api.current import current
from consumers.api.linked import Linked
from infra.hl7_door import Hl7Door
from infra.known_studies import KnownStudies
from infra.ports import Row, Tables
from schemas.known_study import KnownStudy


class ReadModels(KnownStudies):
    """Studies as searches show them."""

    def __init__(self, views: Tables) -> None:
        self._views = views
        self._linked = Linked(lambda: views)

    async def by_accession(self, accession: str) -> Sequence[KnownStudy]:
        """Those with this accession number now; one that was corrected away from it is not among them."""
        listed = await self._views.select(queries.by_accession(accession))
        found = await self._rows([r["study_uid"] for r in listed])
        return await self._known([r for r in found if r["accession"] == accession])

    async def by_uid(self, study_uids: Sequence[str]) -> Sequence[KnownStudy]:
        """Those that are there."""
        return await self._known(await self._rows(study_uids))

    async def _rows(self, study_uids: Sequence[str]) -> list[Row]:
        answers = await self._views.select_many([queries.study_state(uid) for uid in study_uids])
        # A row of which only corrections or completions are known has no answer yet: the study has not arrived.
        return await current(self._views, [rows[0] for rows in answers if rows and rows[0]["answer"]])

    async def _known(self, rows: Sequence[Row]) -> list[KnownStudy]:
        groups = await self._linked.groups(r["patient_key"] for r in rows)
        return [
            KnownStudy(
                study_uid=row["study_uid"],
                sites=frozenset(row["sites"] or ()),
                patient_id=row["patient_id"] or "",
                birth_date=row["birth_date"] or "",
                sex=row["sex"] or "",
                files=frozenset(groups[key].keys) if (key := row["patient_key"]) else frozenset(),
            )
            for row in rows
        ]


def register(door: Hl7Door) -> None:
    """Give the door its port to the read models."""
    door.studies = ReadModels(door.views)
