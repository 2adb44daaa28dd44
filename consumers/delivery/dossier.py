"""What there is to tell of a report or a study, from the read models and the documents: as it is now, corrected."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from consumers.api import overlay, queries
from consumers.api.beside import Beside, beside
from consumers.api.current import current
from consumers.api.letterheads import Letterheads
from consumers.api.linked import Linked
from consumers.delivery.press import Print
from consumers.report_pdf.letterhead import Lang
from consumers.report_pdf.sheet import About, Sheet, sheet_of
from infra import clock
from infra.ports import Objects, Row, Tables
from infra.settings import Settings
from schemas.errors import Defect, Invalid
from schemas.events import ReportIssued, StudyCompleted
from schemas.identity import NationalID


@dataclass(frozen=True)
class Person:
    """Whose a study is, as it is now."""

    patient_key: str
    national_id: str
    """Empty: none that agrees with birth date and sex."""
    row: Mapping[str, Any]
    """Columns of `studies` about the patient."""


@dataclass(frozen=True)
class Study:
    """A study with its series."""

    row: Row
    series: Sequence[Row]
    person: Person

    @property
    def uid(self) -> str:
        """Study Instance UID."""
        return str(self.row["study_uid"])


@dataclass(frozen=True)
class Report:
    """A version of a report."""

    row: Row
    document: Mapping[str, Any]
    pdf: bytes


class Dossiers:
    """Reads what is to be told. Every call raises Transient."""

    def __init__(
        self,
        settings: Settings,
        tables: Callable[[], Tables],
        objects: Objects,
        printed: Print,
    ) -> None:
        """`printed`: makes the PDF of a sheet."""
        self._tables, self._objects, self._print = tables, objects, printed
        self._letterheads = Letterheads(settings.letterheads)
        self._base_url = settings.public_url
        self.zone = ZoneInfo(settings.time_zone)
        self.dicomweb = self._base_url + "/dicom-web"

    async def study(self, study_uid: str) -> Study | None:
        """A study; None while the archive has none of it, or when all of it was rejected."""
        tables = self._tables()
        state, series = await tables.select_many([queries.study_state(study_uid), queries.series_of(study_uid)])
        found = await current(tables, state)
        if not found or not found[0]["answer"]:
            return None
        return Study(found[0], overlay.series_rows(found[0], series), await self._person(found[0]))

    async def studies_of(self, patient_keys: Sequence[str]) -> list[str]:
        """Study UIDs of these files."""
        answers = await self._tables().select_many([queries.by_patient(k) for k in patient_keys])
        return list(dict.fromkeys(r["study_uid"] for rows in answers for r in rows))

    async def _person(self, row: Row) -> Person:
        """Whose a study is. Of files that people joined, the first that has a national ID, as it is at this moment."""
        own = person_of(row)
        group = await Linked(self._tables).group(own.patient_key) if own.patient_key else None
        if group is None or len(group.keys) == 1:
            return own
        files = await self._tables().select_many([queries.patient(k) for k in group.keys])
        joined = (person_of({**rows[0], "patient_key": k}) for k, rows in zip(group.keys, files, strict=True) if rows)
        return next((person for person in joined if person.national_id), own)

    async def exists(self, study_uid: str) -> bool:
        """Whether the archive has anything of a study, hidden or not."""
        rows = await self._tables().select(queries.study_owner(study_uid))
        return bool(rows)

    async def reports_of(self, study_uid: str) -> list[str]:
        """Ids of the reports of a study."""
        rows = await self._tables().select(queries.reports_of(study_uid))
        return list(dict.fromkeys(r["report_id"] for r in rows))

    async def versions(self, report_id: str) -> list[Row]:
        """Rows of `reports`, newest first."""
        return await self._tables().select(queries.report(report_id))

    async def report(self, row: Row, study: Study, current_version: int) -> Report:
        """A version with its document and its printed form. Raises Defect for a document that is not its event's."""
        data = await asyncio.to_thread(self._objects.get, row["bucket"], row["document_key"])
        if hashlib.sha256(data).hexdigest() != row["document_sha256"]:
            raise Defect(f"report document {row['document_key']} has not the checksum of its event")
        document = msgspec.json.decode(data)
        lang: Lang = "en" if str(document.get("language", "")).lower().startswith("en") else "ar"
        also = await beside(self._tables(), self._objects, document, lang)
        sheet = self._sheet(row, document, study, current_version, lang, also)
        return Report(row, document, await self._print(sheet))

    def _sheet(
        self,
        row: Row,
        document: Mapping[str, Any],
        study: Study,
        current_version: int,
        lang: Lang,
        also: Beside,
    ) -> Sheet:
        about = About(
            report_id=row["report_id"],
            version=row["version"],
            current_version=current_version,
            status=row["status"],
            site=row["site"],
            issued=row["issued"],
            sha256=row["document_sha256"],
        )
        return sheet_of(
            document,
            msgspec.json.decode(study.row["answer"]),
            about,
            self._letterheads.of(row["site"]),
            base_url=self._base_url,
            lang=lang,
            zone=self.zone,
            priors=also.priors,
            signer=also.signer,
        )


REPORT_COLUMNS = (
    "report_id", "version", "status", "study_uids", "site", "issued", "bucket", "document_key", "document_size",
    "document_sha256",
)  # fmt: skip
"""Of `reports`, under the names that `report.issued` has for them."""


def row_of(event: ReportIssued) -> Row:
    """The row of `reports` that an event makes: what is delivered is the version that it tells of."""
    return {n: getattr(event, n) for n in REPORT_COLUMNS}


def event_of_report(row: Row) -> ReportIssued:
    """The same in the other direction, of a row of `reports`."""
    return ReportIssued(**{n: row[n] for n in REPORT_COLUMNS})


def event_of_study(row: Row) -> StudyCompleted:
    """What a row of `studies` says of its completion. Raises Defect for one that is not complete."""
    if row["completed_revision"] is None:
        raise Defect("a study that is not complete has no completion")
    return StudyCompleted(
        study_uid=row["study_uid"],
        basis=row["completed_basis"],
        revision=row["completed_revision"],
        as_of_partition=row["arrivals_partition"],
        as_of_offset=row["completed_revision"] - 1,
        packs=row["pack_count"],
        series=row["series_count"],
        instances=row["completed_instances"],
        bytes=row["bytes"],
        first_arrival=clock.rfc3339(row["first_arrival"]),
        last_arrival=clock.rfc3339(row["last_arrival"]),
    )


def person_of(row: Mapping[str, Any]) -> Person:
    """Whose a row of `studies` is. A national ID that belies the birth date or the sex is somebody else's."""
    number = ""
    try:
        national = NationalID.parse(row["patient_id"] or "")
        if row["birth_date"] == national.birth_date.strftime("%Y%m%d") and row["sex"] == national.sex:
            number = national.value
    except Invalid:
        pass
    return Person(row["patient_key"] or "", number, row)
