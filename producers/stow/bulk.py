"""Pixel data that come as a part of their own: in which transfer syntax, and how they lie in a file. Pure.

PS3.18 §8.7.3: compressed pixel data come as `image/…` or `video/…` parts, with a transfer-syntax parameter or in the
media type's default, everything else as `application/octet-stream` in Explicit VR Little Endian. Where a parameter is
missing the code stream itself says which of a family it is: senders leave it out and do not mean the default.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from producers.dicom.encode import UNDEFINED
from producers.dicom.syntaxes import EXPLICIT_LE, IMPLICIT_LE, TRANSFER_SYNTAXES
from schemas.errors import Invalid

PIXEL_DATA: Final = 0x7FE00010
OCTETS: Final = "application/octet-stream"
HEAD_BYTES: Final = 1 << 16
"""Of a code stream, in which it says what it is."""

_JPEG: Final = "1.2.840.10008.1.2.4."
# PS3.18 Tables 8.7.3-2 and 8.7.3-4: the transfer syntax of a media type that names none.
DEFAULTS: Final[Mapping[str, str]] = {
    "image/jpeg": _JPEG + "70",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/jls": _JPEG + "80",
    "image/jp2": _JPEG + "90",
    "image/jpx": _JPEG + "92",
    "image/jphc": _JPEG + "201",
    "video/mpeg": _JPEG + "100",
    "video/mpeg2": _JPEG + "100",
    "video/mp4": _JPEG + "102",
    "video/h265": _JPEG + "107",
}
_ITEM: Final = struct.Struct("<HHI")
_NO_OFFSET_TABLE: Final = _ITEM.pack(0xFFFE, 0xE000, 0)
SEQUENCE_END: Final = _ITEM.pack(0xFFFE, 0xE0DD, 0)
ENCAPSULATED_HEAD: Final = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED) + _NO_OFFSET_TABLE


def transfer_syntax(media_type: str, said: str, head: bytes) -> str:
    """Of pixel data in parts of `media_type`, whose first bytes are `head`; `said` is the parameter, or what the
    metadata say. Raises Invalid(`bulk-data-syntax`).
    """
    if media_type == OCTETS and said in ("", EXPLICIT_LE, IMPLICIT_LE):
        return EXPLICIT_LE  # bulk data are little endian, and have no VR (PS3.18 §8.7.3)
    found = said or _told(media_type, head) or DEFAULTS.get(media_type, "")
    entry = TRANSFER_SYNTAXES.get(found)
    if entry is None or not entry[1].encapsulated or (media_type != OCTETS and media_type not in DEFAULTS):
        raise Invalid("bulk-data-syntax", "pixel data in a media type or transfer syntax that they cannot be in")
    return found


def fragment_head(length: int) -> bytes:
    """What stands before a fragment (PS3.5 §A.4). Raises Invalid(`metadata-length`)."""
    if length >= UNDEFINED:
        raise Invalid("metadata-length", "a fragment is longer than one may be")
    return _ITEM.pack(0xFFFE, 0xE000, length + (length & 1))


def _told(media_type: str, head: bytes) -> str:
    """What a code stream says of itself; "" when it does not."""
    match media_type:
        case "image/jpeg":
            return _jpeg(head)
        case "image/jls":
            return {0: _JPEG + "80"}.get(_jpeg_ls_near(head), _JPEG + "81")
        case "image/jp2":
            return _jpeg_2000(head)
    return ""


def _segments(head: bytes) -> Mapping[int, bytes]:
    """The first segment under each marker up to the start of scan (ITU-T T.81 §B.1)."""
    found: dict[int, bytes] = {}
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        found.setdefault(marker, head[at + 4 : at + 2 + length])
        if marker == 0xDA:
            break
        at += 2 + length
    return found


def _jpeg(head: bytes) -> str:
    segments = _segments(head)
    if 0xC0 in segments:
        return _JPEG + "50"
    if 0xC1 in segments:
        return _JPEG + "51"
    scan = segments.get(0xDA, b"")
    if 0xC3 in segments and scan:
        # Ss of a lossless scan is the predictor: first-order prediction has a transfer syntax of its own.
        predictor = scan[1 + 2 * scan[0]] if len(scan) > 1 + 2 * scan[0] else 0
        return _JPEG + ("70" if predictor == 1 else "57")
    return ""


def _jpeg_ls_near(head: bytes) -> int:
    """NEAR of the first scan (ITU-T T.87 §C.2.3); 0: lossless, also where it cannot be found."""
    scan = _segments(head).get(0xDA, b"")
    at = 1 + 2 * scan[0] if scan else 0
    return scan[at] if 0 < at < len(scan) else 0


def _jpeg_2000(head: bytes) -> str:
    """By the wavelet of the coding style default, COD (ITU-T T.800 §A.6.1): 1 is the reversible one."""
    at = head.find(b"\xff\x52")
    if at < 0 or at + 14 > len(head):
        return ""
    return _JPEG + ("90" if head[at + 13] == 1 else "91")
