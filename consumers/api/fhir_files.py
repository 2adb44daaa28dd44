"""Rows of the read models as FHIR resources: what their mappers need beside them is read here.

A study's and a report's subject is the file that stands for the person; its Patient names the others joined to it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

import msgspec

from consumers.api import overlay, queries
from consumers.api.current import current
from consumers.api.linked import Group
from consumers.api.person import person
from consumers.api.reach import Reach
from consumers.api.room import Room
from consumers.fhir import endpoint
from consumers.fhir.codes import Resource, compact
from consumers.fhir.diagnostic_report import diagnostic_report, study_reference
from consumers.fhir.ids import patient_reference
from consumers.fhir.imaging_study import imaging_study
from consumers.fhir.patient import patient
from consumers.fhir.person_name import name_text
from consumers.fhir.service_request import service_request
from infra.ports import Row
from schemas.errors import Defect

DOCUMENTS_AT_ONCE = 16


class Files:
    """The FHIR side of a room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.zone = ZoneInfo(room.settings.time_zone)

    async def patient(self, key: str) -> Resource | None:
        """A Patient; None for one who is not known."""
        row = await person(self._room.views.tables, key)
        if row is None:
            return None
        replaces, replaced_by = (await self.group(key)).links(key)
        return patient(row, linked=replaces, replaced_by=replaced_by)

    async def patients(self, keys: Iterable[str]) -> list[Resource]:
        """Those of several who are known."""
        found = await asyncio.gather(*(self.patient(k) for k in dict.fromkeys(keys)))
        return [p for p in found if p is not None]

    async def group(self, key: str) -> Group:
        """The files that are joined to one."""
        return await self._room.scopes.linked.group(key)

    async def visible(self, reach: Reach, keys: Sequence[str]) -> list[str]:
        """Of patient keys those within a reach."""
        out = [await self._room.scopes.keeps_out(reach, k) for k in keys]
        return [k for k, kept in zip(keys, out, strict=True) if not kept]

    async def whole(self, study_uids: Sequence[str]) -> list[Row]:
        """Rows of `studies` as they are now, of those that are known and not hidden, in their order."""
        answers = await self._room.views.tables.select_many([queries.study_state(u) for u in study_uids])
        rows = [found[0] for found in answers if found and found[0]["answer"]]
        return await current(self._room.views.tables, rows)

    async def studies(self, rows: Sequence[Row]) -> list[Resource]:
        """ImagingStudies of rows of `studies` as they are now."""
        tables = self._room.views.tables
        uids = [r["study_uid"] for r in rows]
        selects = [queries.series_of(u) for u in uids] + [queries.orders_of_study(u) for u in uids]
        answers = await tables.select_many(selects) if selects else []
        below, ordered = answers[: len(uids)], answers[len(uids) :]
        groups = await self._room.scopes.linked.groups(r["patient_key"] for r in rows)
        return [
            imaging_study(
                row,
                overlay.series_rows(row, series),
                subject=_subject(groups, row["patient_key"], row["patient_name"]),
                endpoint={"reference": endpoint.REFERENCE},
                zone=self.zone,
                based_on=[{"reference": f"ServiceRequest/{o['order_id']}"} for o in orders],
            )
            for row, series, orders in zip(rows, below, ordered, strict=True)
        ]

    async def reports(self, rows: Sequence[Row]) -> list[tuple[Resource, list[tuple[str, str]]]]:
        """DiagnosticReports of rows of `reports`, each with the (study UID, patient key) pairs that it shows."""
        uids = list(dict.fromkeys(u for r in rows for u in r["study_uids"] or ()))
        owners = dict(await self._room.owners(uids))
        groups = await self._room.scopes.linked.groups(owners.values())
        gate = asyncio.Semaphore(DOCUMENTS_AT_ONCE)

        async def one(row: Row) -> tuple[Resource, list[tuple[str, str]]]:
            async with gate:
                document = await asyncio.to_thread(self._document, row)
            pairs = [(u, owners.get(u, "")) for u in row["study_uids"] or ()]
            # One report of studies of several people says for none of them whose it is.
            keys = {groups[k].key for _, k in pairs if k}
            subject = _subject(groups, next(iter(keys)), "") if len(keys) == 1 else None
            studies = [study_reference(u) for u, _ in pairs]
            return diagnostic_report(row, document, subject=subject, studies=studies), pairs

        return list(await asyncio.gather(*(one(r) for r in rows)))

    async def orders(self, rows: Sequence[Row]) -> list[Resource]:
        """ServiceRequests of rows of orders."""
        groups = await self._room.scopes.linked.groups(r["patient_key"] for r in rows)
        gate = asyncio.Semaphore(DOCUMENTS_AT_ONCE)

        async def one(row: Row) -> Resource:
            async with gate:
                document = await asyncio.to_thread(self._document, row)
            subject = _subject(groups, row["patient_key"], row["patient_name"]) if row["patient_key"] else None
            said = {"id": row["order_id"], "version": row["version"], "recorded": row["recorded"] or ""}
            return service_request(document, subject=subject, **said)

        return list(await asyncio.gather(*(one(r) for r in rows)))

    def _document(self, row: Row) -> Resource:
        data = self._room.objects.get(row["bucket"], row["document_key"])
        if hashlib.sha256(data).hexdigest() != row["document_sha256"]:
            raise Defect("a document in S3 is not the one its event names")
        found: Resource = msgspec.json.decode(data)
        return found

    def endpoint(self, base: str) -> Resource:
        """The archive's DICOMweb service under the base URL of its DICOMweb door."""
        return endpoint.endpoint(base)


def _subject(groups: dict[str, Group], key: str, name: str | None) -> Resource:
    if not key:
        return {"display": "unknown"}
    first = groups[key].key if key in groups else key
    return compact({"reference": patient_reference(first), "display": name_text(name or "") if first == key else ""})
