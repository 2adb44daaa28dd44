"""Who a patient key is: as their images say, or as people who gave them a study do."""

from __future__ import annotations

from dataclasses import replace

from consumers.api import queries
from consumers.api.current import current
from consumers.api.overlay import LAID
from infra.ports import Row, Tables

REASSIGNED = "reassigned"
"""`basis` of a patient whom no dataset names."""


async def person(tables: Tables, key: str) -> Row | None:
    """A row of `patients`; of a patient who is known by studies alone that people gave them, as the newest of these has
    them; None for one who is not known. Raises Transient.
    """
    rows = await tables.select(queries.patient(key))
    if rows:
        return rows[0]
    listed = await tables.select(replace(queries.by_patient(key), limit=1))
    for row in await current(tables, listed):
        if LAID in row and row["patient_key"] == key:
            return {
                "patient_key": key,
                "basis": REASSIGNED,
                **{n: row[n] for n in ("patient_name", "patient_id", "issuer", "birth_date", "sex")},
                "last_study_uid": row["study_uid"],
            }
    return None
