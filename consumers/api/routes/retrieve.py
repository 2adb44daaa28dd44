"""WADO-RS (PS3.18 §10.4): instances, metadata, frames, bulk data; and `…/original`, the stored bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from consumers.api import accept, answering, dicomjson
from consumers.api.conditional import REVALIDATED, kept_for
from consumers.api.decoders import decodable
from consumers.api.guard import Answer, Ask, Guard, Handler
from consumers.api.headers import Headers
from consumers.api.packs import Packs
from consumers.api.plan import boundary_of, etag
from consumers.api.retrieve import PIXELS
from consumers.api.room import Room
from consumers.api.streams import begun
from consumers.api.wado import (
    DICOM,
    NATIVE,
    OCTETS,
    NotAcceptable,
    frame_form,
    frame_numbers,
    instance_form,
    multipart_type,
    pixels_form,
)
from consumers.api.zipped import MEDIA_TYPE as ZIP
from consumers.api.zipped import zipped
from schemas import native_xml
from schemas.errors import Invalid
from schemas.roles import Permission

TAG = "Retrieve (WADO-RS)"
METADATA_AT_ONCE = 2000
"""Headers joined in memory; a longer list is sent in portions."""

_BULK_PATH = re.compile(r"(?:[0-9A-Fa-f]{8}/[0-9]{1,9}/)*[0-9A-Fa-f]{8}")

_LEVELS = (
    ("/studies/{study}", ("study",), "study"),
    ("/studies/{study}/series/{series}", ("study", "series"), "series"),
    ("/studies/{study}/series/{series}/instances/{instance}", ("study", "series", "instance"), "instance"),
)
_SYNTAX = (
    "Without transfer-syntax in Accept: Explicit VR Little Endian, losslessly decoded; `transfer-syntax=*`: as stored,"
    " but Implicit VR and Big Endian as Explicit VR Little Endian."
)


def add(guard: Guard, room: Room, headers: Headers, packs: Packs) -> None:
    """Register the routes of the three levels."""
    for path, names, what in _LEVELS:
        guard.get(
            f"/dicom-web{path}",
            _instances(room, packs, names),
            permission=Permission.STUDY_READ,
            action="retrieve",
            summary=f"Retrieve the instances of a {what}" if what != "instance" else "Retrieve an instance",
            description=_SYNTAX,
            tag=TAG,
            media_types=('multipart/related; type="application/dicom"', DICOM if what == "instance" else ZIP),
        )
        guard.get(
            f"/dicom-web{path}/metadata",
            _metadata(room, headers, names),
            permission=Permission.STUDY_READ,
            action="read-metadata",
            summary=f"Retrieve the metadata of a {what}",
            tag=TAG,
            media_types=(*dicomjson.MEDIA_TYPES, dicomjson.XML_PARTS),
        )
        guard.get(
            f"/dicom-web{path}/original",
            _originals(room, names),
            permission=Permission.STUDY_ORIGINAL,
            action="retrieve-original",
            summary=f"Retrieve the stored bytes of a {what}",
            description="Part 10 files as they were received, in whatever transfer syntax.",
            tag=TAG,
            media_types=('multipart/related; type="application/dicom"', DICOM)[: 1 + (what == "instance")],
        )
    instance = _LEVELS[2][0]
    guard.get(
        f"/dicom-web{instance}/frames/{{frames}}",
        _frames(room),
        permission=Permission.STUDY_READ,
        action="retrieve-frames",
        summary="Retrieve frames of an instance",
        description="Compressed frames leave as they are stored where Accept takes their media type, or"
        " `application/octet-stream; transfer-syntax=*`.",
        tag=TAG,
        media_types=('multipart/related; type="application/octet-stream"',),
    )
    guard.get(
        f"/dicom-web{instance}/bulkdata/{{path:path}}",
        _bulk(room),
        permission=Permission.STUDY_READ,
        action="retrieve-bulkdata",
        summary="Retrieve a value that the metadata refer to",
        tag=TAG,
        media_types=('multipart/related; type="application/octet-stream"', OCTETS),
    )


def _instances(room: Room, packs: Packs, names: Sequence[str]) -> Handler:
    async def instances(ask: Ask) -> Answer:
        single = len(names) == 3
        accepted = _accepted(ask)
        if not single and accepted and accepted[0].of == ZIP:
            return await _zip(ask, room, packs, names, accepted[0].transfer_syntax)
        form = instance_form(accepted, single=single)
        about, rows = await room.asked(ask, names)
        plan = room.retriever.instances(rows, form, _url(ask, room))
        return await answering.of_plan(ask, room, about, plan, one=single)

    return instances


async def _zip(ask: Ask, room: Room, packs: Packs, names: Sequence[str], syntax: str) -> Answer:
    about, rows = await room.asked(ask, names)
    files = room.retriever.media(rows, (syntax,))
    tag = etag("zip", *(made for _, made in files), rows=rows)
    if same := answering.unchanged_answer(ask, about, ZIP, tag, REVALIDATED):
        return same
    content = await begun(zipped(room.retriever, packs, files))
    headers = {
        "ETag": tag,
        "Cache-Control": REVALIDATED,
        "Vary": answering.VARY,
        "Content-Disposition": f'attachment; filename="{ask.uid(names[-1])}.zip"',
    }
    return Answer(about=about, content=content, media_type=ZIP, headers=headers)


def _originals(room: Room, names: Sequence[str]) -> Handler:
    async def originals(ask: Ask) -> Answer:
        single = len(names) == 3
        accepted = _accepted(ask)
        # One instance leaves as the file it is, unless only multipart is taken.
        multipart = not single or (all(a.multipart for a in accepted) and bool(accepted))
        if not any(a.takes(DICOM) for a in accepted):
            raise NotAcceptable("the stored bytes leave as application/dicom")
        about, rows = await room.asked(ask, names, original=True)
        plan = room.retriever.originals(rows, multipart=multipart, url=_url(ask, room))
        return await answering.of_plan(ask, room, about, plan, one=single)

    return originals


def _metadata(room: Room, headers: Headers, names: Sequence[str]) -> Handler:
    async def metadata(ask: Ask) -> Answer:
        media_type = dicomjson.model_type(_accepted(ask))
        about, rows = await room.asked(ask, names)
        url = _url(ask, room)
        as_xml, at_once = media_type == native_xml.MEDIA_TYPE, len(rows) <= METADATA_AT_ONCE
        compressed = at_once and not as_xml and answering.takes_gzip(ask)
        tag = etag("metadata", url, "xml" if as_xml else "gzip" if compressed else "", rows=rows)
        boundary = boundary_of(tag)
        if as_xml:
            media_type = multipart_type(boundary, media_type)
        if same := answering.unchanged_answer(ask, about, media_type, tag, REVALIDATED):
            return same
        if at_once and not as_xml:
            content = await headers.whole(rows, url, tag, compressed=compressed)
            told = {"Content-Encoding": "gzip"} if compressed else {}
            return answering.of_bytes(ask, about, content, media_type, tag, REVALIDATED, told)
        portions = headers.documents(rows, url, boundary) if as_xml else headers.portions(rows, url, METADATA_AT_ONCE)
        told = {"ETag": tag, "Cache-Control": REVALIDATED, "Vary": answering.VARY}
        return Answer(about=about, content=await begun(portions), media_type=media_type, headers=told)

    return metadata


def _frames(room: Room) -> Handler:
    async def frames(ask: Ask) -> Answer:
        numbers = frame_numbers(ask.part("frames"))
        about, rows = await room.asked(ask, _LEVELS[2][1])
        row = rows[0]
        form = frame_form(row["transfer_syntax"], _accepted(ask), decodable, single=len(numbers) == 1)
        where = f"{_url(ask, room)}/series/{row['series_uid']}/instances/{row['sop_uid']}"
        plan = await room.retriever.frames(row, numbers, form, where)
        return await answering.of_plan(ask, room, about, plan, one=True)

    return frames


def _bulk(room: Room) -> Handler:
    async def bulk(ask: Ask) -> Answer:
        path = ask.part("path")
        steps = path.split("/")
        if len(steps) > 64 or not _BULK_PATH.fullmatch(path):
            raise Invalid("bulkdata-path", "a path of bulk data is tags of 8 hex digits and item numbers, in turn")
        path, accepted = path.upper(), _accepted(ask)
        about, rows = await room.asked(ask, _LEVELS[2][1])
        row = rows[0]
        if path == PIXELS and row["transfer_syntax"] not in NATIVE:
            form = pixels_form(row["transfer_syntax"], accepted, decodable)
            if form is not None:
                where = f"{_url(ask, room)}/series/{row['series_uid']}/instances/{row['sop_uid']}"
                plan = await room.retriever.compressed(row, form, where)
                return await answering.of_plan(ask, room, about, plan, one=True)
        multipart = _octets(accepted)
        tag, cache = etag("bulk", path, str(multipart), rows=rows), kept_for(room.settings.access_window_s)
        media_type = multipart_type(boundary_of(tag), OCTETS) if multipart else OCTETS
        if same := answering.unchanged_answer(ask, about, media_type, tag, cache):
            return same
        plan = await room.retriever.bulk(row, path, tag, multipart=multipart)
        return await answering.of_plan(ask, room, about, plan, one=True)

    return bulk


def _octets(accepted: Sequence[accept.Accepted]) -> bool:
    """Whether bulk data leave as multipart. Raises NotAcceptable."""
    for a in accepted:
        if a.takes(OCTETS):
            return a.multipart or a.of == accept.ANY
    raise NotAcceptable("bulk data leave as application/octet-stream")


def _accepted(ask: Ask) -> tuple[accept.Accepted, ...]:
    return accept.parse(ask.option("accept") or ask.header("accept"))


def _url(ask: Ask, room: Room) -> str:
    return f"{room.base(ask)}/studies/{ask.uid('study')}"
