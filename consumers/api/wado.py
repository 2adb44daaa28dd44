"""WADO-RS, the deciding half (PS3.18 §10.4): in which transfer syntax and form an instance or frame leaves. Pure.

Tables first: what is stored × what is wanted → what is done. The rule of the design: nothing said means Explicit VR
Little Endian, losslessly decoded; `*` means as stored, except that Implicit VR and Big Endian leave as Explicit VR
Little Endian, since they may not be used on the web (PS3.18 §8.7.3.5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from consumers.api.accept import Accepted
from schemas.errors import Invalid, Permanent

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
JPEG2000 = "1.2.840.10008.1.2.4.90"
"""JPEG 2000 lossless: what anything with pixels is written as when a client asks."""
NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE})
NOT_ON_THE_WEB = frozenset({IMPLICIT_LE, EXPLICIT_BE})

DICOM = "application/dicom"
OCTETS = "application/octet-stream"

# PS3.18 Tables 8.7.3-2, -3 and -4: the media type of compressed pixel data by its transfer syntax (prefixes).
MEDIA_TYPES: tuple[tuple[str, str], ...] = (
    ("1.2.840.10008.1.2.4.50", "image/jpeg"),
    ("1.2.840.10008.1.2.4.51", "image/jpeg"),
    ("1.2.840.10008.1.2.4.57", "image/jpeg"),
    ("1.2.840.10008.1.2.4.70", "image/jpeg"),
    ("1.2.840.10008.1.2.5", "image/dicom-rle"),
    ("1.2.840.10008.1.2.4.80", "image/jls"),
    ("1.2.840.10008.1.2.4.81", "image/jls"),
    ("1.2.840.10008.1.2.4.90", "image/jp2"),
    ("1.2.840.10008.1.2.4.91", "image/jp2"),
    ("1.2.840.10008.1.2.4.92", "image/jpx"),
    ("1.2.840.10008.1.2.4.93", "image/jpx"),
    ("1.2.840.10008.1.2.4.201", "image/jphc"),
    ("1.2.840.10008.1.2.4.202", "image/jphc"),
    ("1.2.840.10008.1.2.4.203", "image/jphc"),
    ("1.2.840.10008.1.2.4.100", "video/mpeg2"),
    ("1.2.840.10008.1.2.4.101", "video/mpeg2"),
    ("1.2.840.10008.1.2.4.102", "video/mp4"),
    ("1.2.840.10008.1.2.4.103", "video/mp4"),
    ("1.2.840.10008.1.2.4.104", "video/mp4"),
    ("1.2.840.10008.1.2.4.105", "video/mp4"),
    ("1.2.840.10008.1.2.4.106", "video/mp4"),
    ("1.2.840.10008.1.2.4.107", "video/H265"),
    ("1.2.840.10008.1.2.4.108", "video/H265"),
)
_MEDIA_TYPE = dict(MEDIA_TYPES)


class NotAcceptable(Permanent):
    """Nothing the client takes can be made of what is stored: 406."""


class Way(Enum):
    """How stored bytes become the answer's."""

    AS_STORED = "the stored bytes"
    TO_EXPLICIT = "written again as Explicit VR Little Endian, pixel data decoded where it is compressed"
    TO_JPEG2000 = "pixel data compressed without loss"


PART10_HEAD = 132
"""Bytes of preamble and prefix (PS3.10 §7.1). A dataset that begins before them was stored without: it leaves as a file
with File Meta all the same, except as `…/original`."""


def media_type_of(transfer_syntax: str) -> str:
    """Media type of frames as stored."""
    return OCTETS if transfer_syntax in NATIVE else _MEDIA_TYPE.get(transfer_syntax, OCTETS)


def way(stored: str, wanted: str, decodable: Callable[[str], bool]) -> Way | None:
    """How an instance stored in one transfer syntax leaves in another; None: it cannot. `wanted` as in Accepted."""
    if wanted in ("", EXPLICIT_LE):
        if stored == EXPLICIT_LE:
            return Way.AS_STORED
        return Way.TO_EXPLICIT if stored in NATIVE or decodable(stored) else None
    if wanted == "*":
        return Way.TO_EXPLICIT if stored in NOT_ON_THE_WEB else Way.AS_STORED
    if wanted == stored:
        return None if stored in NOT_ON_THE_WEB else Way.AS_STORED
    return Way.TO_JPEG2000 if wanted == JPEG2000 and (stored in NATIVE or decodable(stored)) else None


@dataclass(frozen=True)
class Form:
    """What an answer of instances looks like."""

    multipart: bool
    wanted: tuple[str, ...]
    """Transfer syntaxes the client takes, best first."""


def instance_form(accepted: Sequence[Accepted], *, single: bool) -> Form:
    """The form of an answer of one (`single`) or many instances. Raises NotAcceptable."""
    for first in accepted:
        if not first.takes(DICOM) or not (first.multipart or single or first.of == "*/*"):
            continue
        # `*/*` means the standard's default, multipart/related.
        multipart = first.multipart or first.of == "*/*"
        same = (a for a in accepted if a.takes(DICOM) and (a.multipart or a.of == "*/*") == multipart)
        return Form(multipart, tuple(dict.fromkeys(a.transfer_syntax for a in same)))
    raise NotAcceptable(f"instances leave as multipart/related; type={DICOM!r}" + (f" or {DICOM}" if single else ""))


def choose(stored: str, wanted: Iterable[str], decodable: Callable[[str], bool]) -> Way | None:
    """The first way by which an instance can leave as the client takes it."""
    return next((w for syntax in wanted if (w := way(stored, syntax, decodable))), None)


@dataclass(frozen=True)
class FrameForm:
    """How frames leave. `decode`: as uncompressed octets, Explicit VR Little Endian."""

    multipart: bool
    media_type: str
    transfer_syntax: str
    decode: bool


def frame_form(
    stored: str, accepted: Sequence[Accepted], decodable: Callable[[str], bool], *, single: bool
) -> FrameForm:
    """How frames of an instance leave. Raises NotAcceptable.

    `application/octet-stream; transfer-syntax=*`, which viewers send, gives compressed frames as they are stored, with
    their transfer syntax named: that is what those viewers mean.
    """
    own = media_type_of(stored)
    for a in accepted:
        if not (a.multipart or single or a.of == "*/*"):
            continue
        multipart = a.multipart or a.of == "*/*"
        if stored in NATIVE:
            if a.takes(OCTETS) and a.transfer_syntax in ("", "*", EXPLICIT_LE):
                return FrameForm(multipart, OCTETS, EXPLICIT_LE, decode=stored in (EXPLICIT_BE, DEFLATED_LE))
            continue
        as_stored = a.transfer_syntax in ("", "*", stored)
        if as_stored and a.takes(own) and a.of != OCTETS:
            return FrameForm(multipart, own, stored, decode=False)
        if a.takes(OCTETS):
            if a.transfer_syntax in ("*", stored):
                return FrameForm(multipart, OCTETS, stored, decode=False)
            if a.transfer_syntax in ("", EXPLICIT_LE) and decodable(stored):
                return FrameForm(multipart, OCTETS, EXPLICIT_LE, decode=True)
    raise NotAcceptable("frames of this instance cannot leave as anything the client takes")


def pixels_form(stored: str, accepted: Sequence[Accepted], decodable: Callable[[str], bool]) -> FrameForm | None:
    """How encapsulated Pixel Data leave as bulk data (PS3.18 §8.7.3.3); None: as the octets of their items.

    Uncompressed is the default, also of `*/*`. Raises NotAcceptable.
    """
    own = media_type_of(stored)
    for a in accepted:
        if a.takes(OCTETS):
            if a.transfer_syntax in ("", EXPLICIT_LE) and decodable(stored):
                return FrameForm(a.multipart or a.of == "*/*", OCTETS, EXPLICIT_LE, decode=True)
            if a.transfer_syntax != EXPLICIT_LE:
                return None
        elif a.takes(own) and a.transfer_syntax in ("", "*", stored):
            return FrameForm(a.multipart, own, stored, decode=False)
    raise NotAcceptable("these pixel data cannot leave as anything the client takes")


def frame_numbers(text: str) -> tuple[int, ...]:
    """Frames of the path, from 1 (PS3.18 §10.4.1.1.4). Raises Invalid(`frame-list`)."""
    numbers = text.split(",")
    if not all(n.isascii() and n.isdigit() and 0 < int(n) < 1 << 31 for n in numbers):
        raise Invalid("frame-list", "frames are numbers from 1, separated by commas")
    return tuple(int(n) for n in numbers)


# ------------------------------------------------------------------------------------------------ multipart


def part_head(boundary: str, media_type: str, transfer_syntax: str, length: int, location: str = "") -> bytes:
    """What stands before a part's bytes (RFC 2046 §5.1.1)."""
    syntax = f"; transfer-syntax={transfer_syntax}" if transfer_syntax else ""
    where = f"Content-Location: {location}\r\n" if location else ""
    head = f"\r\n--{boundary}\r\nContent-Type: {media_type}{syntax}\r\n{where}Content-Length: {length}\r\n\r\n"
    return head.encode("ascii")


def closing(boundary: str) -> bytes:
    """What stands behind the last part."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")


def multipart_type(boundary: str, media_type: str) -> str:
    """Content-Type of the whole."""
    return f'multipart/related; type="{media_type}"; boundary={boundary}'


# ------------------------------------------------------------------------------------------------ ranges

GAP_MAX = 64 * 1024
"""Bytes between two instances that are cheaper read than asked around: a tar header and padding."""
RUN_MAX = 64 << 20
"""Bytes of one range request."""


@dataclass(frozen=True)
class Stored:
    """Bytes of a pack that leave as they are."""

    pack_id: str
    offset: int
    length: int
    head: bytes = b""
    """What is sent before them."""


@dataclass(frozen=True)
class Run:
    """Neighbours in a pack that one range request fetches."""

    pack_id: str
    offset: int
    length: int
    pieces: tuple[Stored, ...]


def runs(pieces: Iterable[Stored]) -> list[Run]:
    """Pieces in their order, neighbours joined. Gaps between them are read and dropped."""
    found: list[Run] = []
    group: list[Stored] = []
    for piece in pieces:
        if group and not _joins(group, piece):
            found.append(_run(group))
            group = []
        group.append(piece)
    if group:
        found.append(_run(group))
    return found


def _joins(group: Sequence[Stored], piece: Stored) -> bool:
    last = group[-1]
    gap = piece.offset - last.offset - last.length
    whole = piece.offset + piece.length - group[0].offset
    return piece.pack_id == last.pack_id and 0 <= gap <= GAP_MAX and whole <= RUN_MAX


def _run(group: Sequence[Stored]) -> Run:
    first, last = group[0], group[-1]
    return Run(first.pack_id, first.offset, last.offset + last.length - first.offset, tuple(group))
