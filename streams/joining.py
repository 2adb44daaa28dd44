"""A study and an order find each other by the site's accession number, whichever comes first: `study.expected`. They
part when the order changes so that they no longer belong together: `study.parted`.

A study with the UID that its order gave is expected since the order was placed. Many devices number their studies
themselves, and in an emergency the order is written afterwards: then site and accession number say whose images these
are. Looked for when the first pack of a study is in the read models, and when a version of an order is: each writes
before it looks, so one of two that come at once finds the other. Both finding each other is the same event twice. For
parting the two are a version of an order, and that a study was expected: an order that changed in between parts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from infra.ports import Select, Tables
from schemas.events import OrderChanged, OrderPlaced, StudyExpected, StudyParted
from schemas.identity import derived_id, is_placeholder
from schemas.lifecycle import ORDER_CANCELLED
from streams.arrivals import Folded
from streams.effects import Emit
from streams.facts import Fact

BASIS: Final = "accession"
CANDIDATES_MAX: Final = 512
"""Studies of a number that are looked at: hospitals count alike, so dozens of them may have it."""
ORDER: Final = ("order_id", "version", "status", "site", "accession", "study_uid", "patient_key", "birth_date", "sex")
STUDY: Final = ("study_uid", "sites", "patient_key", "patient_id", "birth_date", "sex")

Row = Mapping[str, Any]


def belongs(study: Row, order: Row) -> bool:
    """Whether a study under an order's accession number is that order's. A number may have been given, or typed, twice:
    then the patients differ, unless one has a number for now and nothing else speaks against it. Pure.
    """
    return order["status"] not in ORDER_CANCELLED and agree(study, order)


def agree(study: Row, order: Row) -> bool:
    """The same of site and patient alone. Pure."""
    if order["site"] not in (study["sites"] or ()):
        return False
    if study["patient_key"] == order["patient_key"]:
        return True
    said = [(study[name] or "", order[name] or "") for name in ("birth_date", "sex")]
    if any(ours and theirs and ours != theirs for ours, theirs in said):
        return False
    return is_placeholder(study["patient_id"] or "") or all(ours for ours, _ in said)


def expected(study_uid: str, order: Row, at: str) -> Emit:
    """That an order expects a study. Pure; `at`: when the later of the two came into the log."""
    event = StudyExpected(study_uid=study_uid, basis=BASIS, site=order["site"], order_id=order["order_id"], recorded=at)
    return Emit(event, derived_id(StudyExpected.TYPE, order["order_id"], study_uid, order["version"]), study_uid)


def parted(study_uid: str, order: Row, at: str) -> Emit:
    """That an order expects a study no longer. Pure; `at`: when what decided it came into the log."""
    id, version = order["order_id"], order["version"]
    event = StudyParted(study_uid=study_uid, site=order["site"], order_id=id, version=version, recorded=at)
    return Emit(event, derived_id(StudyParted.TYPE, id, study_uid, version), study_uid)


class Joining:
    """Looks for the other half. Reads alone."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def of_studies(self, arrived: Iterable[Folded]) -> list[Emit]:
        """Orders that the studies of which the first pack has arrived were made for."""
        asked: list[tuple[Row, str, Select]] = []
        for first in (folded.arrivals[0] for folded in arrived):
            said, row = first.row.summary.study, first.row
            if len(first.rows) == 1 and said.accession:
                study = {
                    "study_uid": row.study_uid,
                    "sites": (row.site,),
                    "patient_key": row.patient_key,
                    "patient_id": said.patient_id,
                    "birth_date": said.birth_date,
                    "sex": said.sex,
                }
                where = {"site": row.site, "accession": said.accession}
                asked.append((study, first.fact.log_time, Select("orders_by_accession", where, ORDER, CANDIDATES_MAX)))
        answers = await self._select([select for _, _, select in asked])
        pairs = [(study, order, at) for (study, at, _), orders in zip(asked, answers, strict=True) for order in orders]
        return await self._joined(pairs)

    async def of_orders(self, facts: Iterable[Fact]) -> list[Emit]:
        """Studies that were there before their orders said so, and those that orders had before they changed."""
        stated = {f.event.order_id: f for f in facts if isinstance(f.event, OrderPlaced | OrderChanged)}
        found = await self._select([Select("orders", {"order_id": id}, ORDER, limit=1) for id in stated])
        orders = [rows[0] for rows in found if rows]
        had = await self._select([Select("studies_by_order", {"order_id": o["order_id"]}) for o in orders])
        joined = [
            (row["study_uid"], order, stated[order["order_id"]].log_time)
            for order, rows in zip(orders, had, strict=True)
            for row in rows
            if row["basis"] == BASIS
        ]
        numbered = [order for order in orders if order["accession"]]
        asked = [
            (uid, order) for order, uids in zip(numbered, await self._numbered(numbered), strict=True) for uid in uids
        ]
        studies = await self._select([Select("studies", {"study_uid": uid}, STUDY) for uid, _ in asked])
        pairs = [
            (rows[0], order, stated[order["order_id"]].log_time)
            for (_, order), rows in zip(asked, studies, strict=True)
            if rows
        ]
        return await self._parted(joined) + await self._joined(pairs)

    async def of_expected(self, facts: Iterable[Fact]) -> list[Emit]:
        """Studies of which it was said that an order expects them when it did no longer."""
        said = {
            (f.event.study_uid, f.event.order_id): f.log_time
            for f in facts
            if isinstance(f.event, StudyExpected) and f.event.basis == BASIS and f.event.order_id
        }
        found = await self._select([Select("orders", {"order_id": id}, ORDER, limit=1) for _, id in said])
        return await self._parted([(uid, r[0], at) for ((uid, _), at), r in zip(said.items(), found, strict=True) if r])

    async def _parted(self, joined: Sequence[tuple[str, Row, str]]) -> list[Emit]:
        """Of studies that were joined with orders those that no longer belong to them."""
        studies = await self._select([Select("studies", {"study_uid": uid}, STUDY) for uid, _, _ in joined])
        numbered = await self._numbered([order for _, order, _ in joined])
        return [
            parted(uid, order, at)
            for (uid, order, at), rows, uids in zip(joined, studies, numbered, strict=True)
            # What was taken back stays on record with its study
            if (uid not in uids and len(uids) < CANDIDATES_MAX) or not (rows and agree(rows[0], order))
        ]

    async def _numbered(self, orders: Sequence[Row]) -> list[list[str]]:
        """Of each order the studies under its accession number, of all sites; none where it has no number."""
        numbers = list(dict.fromkeys(o["accession"] for o in orders if o["accession"]))
        answers = await self._select(
            [Select("studies_by_accession", {"accession": n}, ("study_uid",), CANDIDATES_MAX) for n in numbers]
        )
        found = {n: [row["study_uid"] for row in rows] for n, rows in zip(numbers, answers, strict=True)}
        return [found.get(o["accession"], []) for o in orders]

    async def _joined(self, pairs: Sequence[tuple[Row, Row, str]]) -> list[Emit]:
        """Of those that belong together the ones that do not stand so yet."""
        fitting = [(s, o, at) for s, o, at in pairs if s["study_uid"] != o["study_uid"] and belongs(s, o)]
        known = await self._select(
            [
                Select("orders_by_study", {"study_uid": s["study_uid"], "order_id": o["order_id"]}, ("order_id",))
                for s, o, _ in fitting
            ]
        )
        return [expected(s["study_uid"], o, at) for (s, o, at), rows in zip(fitting, known, strict=True) if not rows]

    async def _select(self, selects: Sequence[Select]) -> list[list[dict[str, Any]]]:
        return await self._tables.select_many(selects) if selects else []
