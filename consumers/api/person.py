"""Who a patient key is: as their images say, as people who gave them a study do, or as their order does."""

from __future__ import annotations

from dataclasses import replace

from consumers.api import queries
from consumers.api.current import current
from consumers.api.overlay import LAID
from infra.ports import Row, Tables
from schemas.errors import Invalid
from schemas.identity import KEY_LOCAL, KEY_NATIONAL, KEY_STUDY, NationalID, is_placeholder

WHO = ("patient_key", "patient_name", "patient_id", "issuer", "birth_date", "sex")
REASSIGNED = "reassigned"
"""`basis` of a patient whom no dataset names."""


async def person(tables: Tables, key: str) -> Row | None:
    """A row of `patients`; of a patient who is known by studies alone that people gave them, as the newest of these has
    them; of one whose images are still to be made, as an order has them; None for who is not known. Raises Transient.
    """
    rows = await tables.select(queries.patient(key))
    if rows:
        return stated(rows[0])
    listed = await tables.select(replace(queries.by_patient(key), limit=1))
    for row in await current(tables, listed):
        if LAID in row and row["patient_key"] == key:
            return {
                "patient_key": key,
                "basis": REASSIGNED,
                **{n: row[n] for n in WHO[1:]},
                "last_study_uid": row["study_uid"],
            }
    ordered = await tables.select(queries.orders_of_patient(key, 1))
    return {n: ordered[0][n] for n in WHO} | {"basis": _basis(ordered[0]), "last_study_uid": ""} if ordered else None


def _basis(who: Row) -> str:
    """What made the patient key of an order or a statement: as `schemas.identity.patient_key` decides."""
    if is_placeholder(who["patient_id"]):
        return KEY_STUDY
    try:
        national = NationalID.parse(who["patient_id"])
    except Invalid:
        return KEY_LOCAL
    agrees = who["birth_date"] == national.birth_date.strftime("%Y%m%d") and who["sex"] == national.sex
    return KEY_NATIONAL if agrees else KEY_LOCAL


def stated(row: Row) -> Row:
    """A row of `patients` as it is shown: what a hospital stated (ADT) goes before what images say, which stays as it
    was when they were made. The number is that of the images, if there are any.
    """
    if not row.get("stated"):
        return row
    told = {n: row[f"stated_{n}"] or row[n] for n in ("birth_date", "sex")}
    number = {} if row["patient_id"] else {"patient_id": row["stated_id"], "issuer": row["stated_issuer"]}
    shown = {**row, **told, **number, "patient_name": row["stated_name"]}
    return shown | {"basis": row["basis"] or _basis(shown)}
