"""What a printed report says that stands in other documents: who signed it, and which studies it was compared with."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from consumers.api import queries
from consumers.api.current import current
from consumers.report_pdf.letterhead import Lang
from consumers.report_pdf.sheet import prior
from infra.ports import Objects, Row, Tables
from schemas.errors import Defect
from schemas.people import Person, decode_person, names
from schemas.report_content import content_of, person_of, signature_of

_ARABIC: Final = re.compile("[\u0600-\u06ff]")


@dataclass(frozen=True)
class Beside:
    """Arguments of `sheet_of`."""

    signer: str
    priors: tuple[str, ...]


async def beside(tables: Tables, objects: Objects, document: Mapping[str, Any], lang: Lang) -> Beside:
    """Of a report's document. Raises Transient, Defect."""
    signature = signature_of(document)
    signer = await name_of(tables, objects, signature.who, lang) if signature else ""
    studies = await answers(tables, content_of(document).comparisons)
    return Beside(signer, tuple(map(prior, studies)))


async def answers(tables: Tables, study_uids: Sequence[str]) -> list[dict[str, Any]]:
    """The answers of studies as they are now (DICOM JSON); those that are not searchable left out."""
    found = await tables.select_many([queries.study_state(uid) for uid in study_uids])
    rows = await current(tables, [rows[0] for rows in found if rows])
    return [msgspec.json.decode(row["answer"]) for row in rows if row["answer"]]


async def name_of(tables: Tables, objects: Objects, actor: str, lang: Lang) -> str:
    """Of somebody on the staff, in the script that is read where there is one; "" of whom the archive does not know."""
    rows = await tables.select(queries.person(person_of(actor))) if person_of(actor) else []
    if not rows:
        return ""
    known = names(await asyncio.to_thread(person_at, objects, rows[0]))
    wanted = [n for n in known if bool(_ARABIC.search(n)) == (lang == "ar")]
    return next(iter(wanted or known), "")


def person_at(objects: Objects, row: Row) -> Person:
    """Who a row of `people` is about. Raises NotFound, Transient, Defect."""
    data = objects.get(row["bucket"], row["document_key"])
    if hashlib.sha256(data).hexdigest() != row["document_sha256"]:
        raise Defect("the document of a person is not the one its event names")
    return decode_person(data)
