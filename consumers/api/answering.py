"""Answers that a client may keep: tagged, conditional, in part (`consumers.api.conditional`)."""

from __future__ import annotations

from collections.abc import Mapping

from consumers.api.conditional import REVALIDATED, Part, kept_for, part, unchanged
from consumers.api.guard import Answer, Ask, Content, OfStudy
from consumers.api.plan import Plan
from consumers.api.room import Room

GZIP = "gzip"
VARY = "Accept, Accept-Encoding"
"""One address has several representations (RFC 9110 §12.5.5): a cache must not give one for another."""


async def of_plan(ask: Ask, room: Room, about: OfStudy, plan: Plan, *, one: bool) -> Answer:
    """A plan's bytes. `one`: the content of one instance, which is kept for a while; a series or a study grows."""
    cache = kept_for(room.settings.access_window_s) if one else REVALIDATED
    length = plan.length
    # A range of a multipart body would cut its parts, and clients that ask for one do not mean that.
    ranged = length is not None and not plan.media_type.startswith("multipart/")
    headers = {"ETag": plan.etag, "Cache-Control": cache, "Vary": VARY} | ({"Accept-Ranges": "bytes"} if ranged else {})
    if unchanged(ask.header("if-none-match"), plan.etag):
        return Answer(about=about, content=b"", media_type=plan.media_type, status=304, headers=headers)
    wanted = _part(ask, plan.etag, length) if ranged else None
    if wanted is None:
        content = await room.retriever.open(plan)
        return Answer(about=about, content=content, media_type=plan.media_type, length=length, headers=headers)
    content = await room.retriever.open(plan.cut(wanted.start, wanted.stop))
    return _in_part(about, content, plan.media_type, wanted, headers)


def of_bytes(
    ask: Ask,
    about: OfStudy,
    content: bytes,
    media_type: str,
    tag: str,
    cache: str,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Bytes that are there."""
    told = {"ETag": tag, "Cache-Control": cache, "Vary": VARY, "Accept-Ranges": "bytes", **(headers or {})}
    wanted = _part(ask, tag, len(content))
    if wanted is None:
        return Answer(about=about, content=content, media_type=media_type, headers=told)
    return _in_part(about, content[wanted.start : wanted.stop], media_type, wanted, told)


def unchanged_answer(ask: Ask, about: OfStudy, media_type: str, tag: str, cache: str) -> Answer | None:
    """304, if the client has what it would get; before that is made. It is recorded as a read all the same."""
    if not unchanged(ask.header("if-none-match"), tag):
        return None
    headers = {"ETag": tag, "Cache-Control": cache, "Vary": VARY}
    return Answer(about=about, content=b"", media_type=media_type, status=304, headers=headers)


def takes_gzip(ask: Ask) -> bool:
    """Whether the client takes a gzipped body (RFC 9110 §12.5.3)."""
    for piece in ask.header("accept-encoding").lower().split(","):
        name, _, quality = piece.partition(";")
        if name.strip() in (GZIP, "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _part(ask: Ask, tag: str, length: int | None) -> Part | None:
    range_ = ask.header("range")
    return part(range_, ask.header("if-range"), tag, length) if range_ and length is not None else None


def _in_part(about: OfStudy, content: Content, media_type: str, wanted: Part, headers: Mapping[str, str]) -> Answer:
    return Answer(
        about=about,
        content=content,
        media_type=media_type,
        status=206,
        length=wanted.stop - wanted.start,
        headers={**headers, "Content-Range": wanted.content_range},
    )
