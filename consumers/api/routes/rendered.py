"""Rendered images and thumbnails (PS3.18 §10.4.1.1.3, §10.4.1.1.5)."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.api import accept, answering
from consumers.api.accept import ANY
from consumers.api.conditional import REVALIDATED, kept_for
from consumers.api.guard import Answer, Ask, Guard, Handler, OfStudy
from consumers.api.look import IGNORED, MEDIA_TYPES, Look, look
from consumers.api.plan import boundary_of, etag
from consumers.api.rendering import FRAMES_MAX, Renderer, images, representatives
from consumers.api.room import Room
from consumers.api.streams import begun
from consumers.api.wado import NotAcceptable, closing, frame_numbers, multipart_type, part_head
from infra.ports import Row
from schemas.errors import Defect, Invalid
from schemas.roles import Permission

TAG = "Rendered images (WADO-RS)"
_PARAMETERS = {
    "accept": "a media type, in place of the header Accept",
    "window": "center,width,function (linear, linear-exact, sigmoid), in the modality's units",
    "viewport": "width,height[,x,y,width,height]: fitted into the first two; a region of the image; negative: mirrored",
    "quality": "1 to 100, of JPEG",
}
_SMALL = {k: _PARAMETERS[k] for k in ("accept", "viewport")}
_STUDY = "/dicom-web/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"
_FRAMES = _INSTANCE + "/frames/{frames}"


def add(guard: Guard, room: Room, renderer: Renderer) -> None:
    """Register the routes."""
    for path, of in ((_INSTANCE, "an instance"), (_FRAMES, "frames")):
        guard.get(
            f"{path}/rendered",
            _rendered(room, renderer),
            permission=Permission.STUDY_READ,
            action="retrieve-rendered",
            summary=f"Render {of}",
            description="One frame is one image, the first where none is named; several, or all where Accept is"
            " multipart/related, are parts.",
            tag=TAG,
            media_types=(*MEDIA_TYPES, 'multipart/related; type="image/jpeg"'),
            parameters=_PARAMETERS,
        )
    for path, of in ((_STUDY, "a study"), (_SERIES, "a series")):
        guard.get(
            f"{path}/rendered",
            _all_rendered(room, renderer),
            permission=Permission.STUDY_READ,
            action="retrieve-rendered",
            summary=f"Render the images of {of}: the first frame of each",
            tag=TAG,
            media_types=('multipart/related; type="image/jpeg"',),
            parameters=_PARAMETERS,
        )
    levels = ((_STUDY, "a study"), (_SERIES, "a series"), (_INSTANCE, "an instance"), (_FRAMES, "a frame"))
    for path, of in levels:
        guard.get(
            f"{path}/thumbnail",
            _thumbnail(room, renderer),
            permission=Permission.STUDY_READ,
            action="retrieve-thumbnail",
            summary=f"A small image that stands for {of}",
            tag=TAG,
            media_types=MEDIA_TYPES,
            parameters=_SMALL,
        )


def _rendered(room: Room, renderer: Renderer) -> Handler:
    async def rendered(ask: Ask) -> Answer:
        wanted, multipart = _look(ask)
        numbers = frame_numbers(ask.part("frames")) if ask.has_part("frames") else ()
        about, rows = await room.asked(ask, ("study", "series", "instance"))
        row = rows[0]
        if not numbers:
            numbers = tuple(range(1, await renderer.frame_count(row) + 1)) if multipart else (1,)
        if len(numbers) > FRAMES_MAX:
            raise Invalid("frame-list", f"at most {FRAMES_MAX} frames are rendered at once")
        tag = etag("rendered", repr(wanted), repr(numbers), str(multipart), rows=[row])
        cache = kept_for(room.settings.access_window_s)
        if not multipart and len(numbers) == 1:
            return await _image(ask, about, renderer, row, numbers[0], wanted, tag, cache)
        boundary = boundary_of(tag)
        media_type = multipart_type(boundary, wanted.media_type)
        if same := answering.unchanged_answer(ask, about, media_type, tag, cache):
            return same
        parts: list[bytes] = []
        for number in numbers:
            image = await renderer.frame(row, number, wanted)
            parts += (part_head(boundary, wanted.media_type, "", len(image)), image)
        body = b"".join((*parts, closing(boundary)))
        return answering.of_bytes(ask, about, body, media_type, tag, cache, _ignored(ask))

    return rendered


def _all_rendered(room: Room, renderer: Renderer) -> Handler:
    async def all_rendered(ask: Ask) -> Answer:
        wanted, multipart = _look(ask)
        if not multipart and ask.header("accept") not in ("", ANY):
            raise NotAcceptable('several images leave as multipart/related; type="image/jpeg"')
        about, rows = await room.asked(ask, [n for n in ("study", "series") if ask.has_part(n)])
        rows = images(rows)
        tag = etag("all-rendered", repr(wanted), rows=rows)
        boundary = boundary_of(tag)
        media_type = multipart_type(boundary, wanted.media_type)
        if same := answering.unchanged_answer(ask, about, media_type, tag, REVALIDATED):
            return same
        content = await begun(renderer.first_frames(rows, wanted, boundary))
        headers = {"ETag": tag, "Cache-Control": REVALIDATED, "Vary": answering.VARY, **_ignored(ask)}
        return Answer(about=about, content=content, media_type=media_type, headers=headers)

    return all_rendered


def _thumbnail(room: Room, renderer: Renderer) -> Handler:
    async def thumbnail(ask: Ask) -> Answer:
        wanted, _ = _look(ask, thumbnail=True)
        names = tuple(n for n in ("study", "series", "instance") if ask.has_part(n))
        about, rows = await room.asked(ask, names)
        (asked, *_) = frame_numbers(ask.part("frames")) if ask.has_part("frames") else (0,)
        cache = kept_for(room.settings.access_window_s) if len(names) == 3 else REVALIDATED
        *candidates, last = representatives(rows)
        for row in (*candidates, last):
            number = asked or (await renderer.frame_count(row) + 1) // 2
            tag = etag("thumbnail", repr(wanted), str(number), rows=[row])
            try:
                return await _image(ask, about, renderer, row, number, wanted, tag, cache)
            except NotAcceptable:
                if row is last:
                    raise
        raise Defect("no candidate was tried")

    return thumbnail


async def _image(
    ask: Ask, about: OfStudy, renderer: Renderer, row: Row, number: int, wanted: Look, tag: str, cache: str
) -> Answer:
    if same := answering.unchanged_answer(ask, about, wanted.media_type, tag, cache):
        return same
    image = await renderer.frame(row, number, wanted)
    return answering.of_bytes(ask, about, image, wanted.media_type, tag, cache, _ignored(ask))


def _look(ask: Ask, *, thumbnail: bool = False) -> tuple[Look, bool]:
    return look(ask.option, accept.parse(ask.option("accept") or ask.header("accept")), thumbnail=thumbnail)


def _ignored(ask: Ask) -> dict[str, str]:
    """PS3.18 §8.3.5: what was asked for and is not done is said."""
    ignored: Sequence[str] = [name for name in IGNORED if ask.option(name)]
    if not ignored:
        return {}
    return {"Warning": f'299 - "The following parameters were ignored: {", ".join(ignored)}"'}
