"""Native datasets written again as Explicit VR Little Endian (PS3.5 §7.1.2): only what must change does. Pure.

Implicit VR gets the VRs of the dictionary; Big Endian gets its numbers turned; Deflated is inflated. Values are not
read, so a wrong character set or an invalid date leaves as it came. Group lengths are left out, since groups grow.
Large values stay views of the input.
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass, field
from struct import Struct
from struct import error as StructError

from pydicom.datadict import dictionary_has_tag, dictionary_VR, private_dictionary_VR

from consumers.api.wado import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from schemas.errors import Invalid
from schemas.identity import IMPLEMENTATION_CLASS_UID

Buffer = bytes | memoryview

UNDEFINED = 0xFFFFFFFF
DEPTH_MAX = 64
INFLATED_MAX = 1 << 30
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_REPRESENTATION, BITS_ALLOCATED, PIXEL_DATA = 0x00280103, 0x00280100, 0x7FE00010

LONG_VRS = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs with a length of 32 bits (PS3.5 Table 7.1-1)."""
WORD_BYTES = {
    "US": 2, "SS": 2, "OW": 2, "AT": 2,
    "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4,
    "FD": 8, "OD": 8, "SV": 8, "UV": 8, "OV": 8,
}  # fmt: skip
_CODES = {2: "H", 4: "I", 8: "Q"}

_SHORT_HEAD = Struct("<HH2sH")
_LONG_HEAD = Struct("<HH2sHI")
_ITEM_HEAD = Struct("<HHI")


@dataclass
class _Context:
    """What the elements around say."""

    signed: bool = False
    bits_allocated: int = 16
    creators: dict[int, str] = field(default_factory=dict)
    """Private creators of this dataset by group and block."""


class _Source:
    """The encoding that is read."""

    def __init__(self, view: memoryview, *, little: bool, explicit: bool) -> None:
        order = "<" if little else ">"
        self.view, self.little, self.explicit = view, little, explicit
        self._tag = Struct(f"{order}HHI").unpack_from
        self._short = Struct(f"{order}H").unpack_from
        self._long = Struct(f"{order}I").unpack_from

    def head(self, pos: int, context: _Context) -> tuple[int, str, int, int]:
        """(tag, VR, length, where the value begins)."""
        group, element, length = self._tag(self.view, pos)
        tag = group << 16 | element
        if group == 0xFFFE:
            return tag, "", length, pos + 8
        if not self.explicit:
            return tag, _vr_of(tag, context), length, pos + 8
        vr = self.view[pos + 4 : pos + 6].tobytes().decode("latin-1")
        if vr in LONG_VRS:
            return tag, vr, self._long(self.view, pos + 8)[0], pos + 12
        return tag, vr, self._short(self.view, pos + 6)[0], pos + 8

    def number(self, pos: int) -> int:
        """A US value."""
        number: int = self._short(self.view, pos)[0]
        return number


def to_explicit(dataset: memoryview, transfer_syntax: str) -> list[Buffer]:
    """The dataset's bytes in Explicit VR Little Endian, in pieces. Raises Invalid(`not-convertible`)."""
    if transfer_syntax == EXPLICIT_LE:
        return [dataset]
    try:
        if transfer_syntax == DEFLATED_LE:
            return [_inflated(dataset)]
        source = _Source(dataset, little=transfer_syntax == IMPLICIT_LE, explicit=transfer_syntax == EXPLICIT_BE)
        out: list[Buffer] = []
        _dataset(source, 0, len(dataset), _Context(), out, 0)
    except (StructError, zlib.error, ValueError) as e:
        raise Invalid("not-convertible", "the stored dataset cannot be written as Explicit VR Little Endian") from e
    return out


def pixel_head(length: int, vr: str = "OW") -> bytes:
    """The head of Pixel Data of that length, native, in Explicit VR Little Endian."""
    return _head(PIXEL_DATA, vr, length)


def with_meta(part10: memoryview, dataset_offset: int, transfer_syntax: str, *, sop_class: str, sop_uid: str) -> bytes:
    """Preamble and File Meta (PS3.10 §7.1) of a stored file, naming `transfer_syntax`.

    Where the stored one cannot be read, or is not there at all, a new one is made of what the archive knows.
    """
    known = {0x0002: sop_class, 0x0003: sop_uid, 0x0010: transfer_syntax, 0x0012: IMPLEMENTATION_CLASS_UID}
    elements = {0x0001: _LONG_HEAD.pack(2, 1, b"OB", 0, 2) + b"\0\1"} | {e: _uid(e, u) for e, u in known.items()}
    preamble = bytes(128)
    if part10[128:132].tobytes() == b"DICM":
        preamble = part10[:128].tobytes()
        elements |= _meta_elements(part10, dataset_offset) | {0x0010: _uid(0x0010, transfer_syntax)}
    meta = b"".join(elements[e] for e in sorted(elements))
    return b"".join((preamble, b"DICM", _SHORT_HEAD.pack(2, 0, b"UL", 4), len(meta).to_bytes(4, "little"), meta))


def _meta_elements(part10: memoryview, dataset_offset: int) -> dict[int, bytes]:
    """Elements of group 0002 as stored; none when it is not in Explicit VR Little Endian."""
    found: dict[int, bytes] = {}
    pos = 132
    while pos + 8 <= dataset_offset:
        group, element, code, length = _SHORT_HEAD.unpack_from(part10, pos)
        start = pos + 8
        if code.decode("latin-1") in LONG_VRS:
            length, start = _LONG_HEAD.unpack_from(part10, pos)[4], pos + 12
        if group != 2 or not code.isalpha() or not code.isupper() or start + length > dataset_offset:
            return {}
        if element:
            found[element] = part10[pos : start + length].tobytes()
        pos = start + length
    return found


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii") + b"\0" * (len(uid) & 1)
    return _SHORT_HEAD.pack(2, element, b"UI", len(value)) + value


def _inflated(dataset: memoryview) -> bytes:
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    data = inflater.decompress(dataset, INFLATED_MAX)
    if inflater.unconsumed_tail:
        raise ValueError("too large")
    return data


# ------------------------------------------------------------------------------------------------ datasets


def _dataset(source: _Source, pos: int, end: int, context: _Context, out: list[Buffer], depth: int) -> int:
    """Elements from `pos` to `end`, or to the delimiter of an item of undefined length; where it ended."""
    if depth > DEPTH_MAX:
        raise ValueError("too deep")
    if depth == 0:
        context.signed = _is_signed(source, pos, end)
    while pos < end:
        if end - pos < 8:
            break  # trailing padding
        tag, vr, length, start = source.head(pos, context)
        if tag in (ITEM_END, SEQUENCE_END):
            return start
        if vr == "SQ" or (length == UNDEFINED and vr == "UN"):
            pos = _sequence(source, tag, start, length, context, out, depth)
            continue
        if length == UNDEFINED or start + length > end:
            raise ValueError("length")
        if tag & 0xFFFF:
            _value(source, tag, vr, start, length, context, out)
        pos = start + length
    return pos


def _value(source: _Source, tag: int, vr: str, start: int, length: int, context: _Context, out: list[Buffer]) -> None:
    value: Buffer = source.view[start : start + length]
    if tag == BITS_ALLOCATED and length == 2:
        context.bits_allocated = source.number(start)
    elif tag == PIXEL_REPRESENTATION and length == 2:
        context.signed = source.number(start) == 1
    elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
        creator = bytes(value).rstrip(b" \0").decode("latin-1")
        context.creators[tag & 0xFFFF0000 | (tag & 0xFF) << 8] = creator
    if not source.little:
        value = _turned(value, vr, max(2, context.bits_allocated // 8) if tag == PIXEL_DATA else 0)
    out.append(_head(tag, vr, length))
    out.append(value)


def _sequence(
    source: _Source, tag: int, start: int, length: int, context: _Context, out: list[Buffer], depth: int
) -> int:
    """A sequence with its items, lengths defined; where it ended."""
    end = len(source.view) if length == UNDEFINED else start + length
    if end > len(source.view):
        raise ValueError("length")
    items: list[Buffer] = []
    pos = start
    while pos < end:
        item_tag, _, item_length, item_start = source.head(pos, context)
        if item_tag == SEQUENCE_END:
            pos = item_start
            break
        if item_tag != ITEM:
            raise ValueError("item")
        content: list[Buffer] = []
        inner = _Context(context.signed, context.bits_allocated)
        stop = end if item_length == UNDEFINED else item_start + item_length
        if stop > end:
            raise ValueError("length")
        pos = _dataset(source, item_start, stop, inner, content, depth + 1)
        if item_length != UNDEFINED:
            pos = stop
        items.append(_ITEM_HEAD.pack(0xFFFE, 0xE000, sum(map(len, content))))
        items += content
    out.append(_head(tag, "SQ", sum(map(len, items))))
    out += items
    return pos


def _head(tag: int, vr: str, length: int) -> bytes:
    code = vr.encode("latin-1")
    if vr not in LONG_VRS:
        if length <= 0xFFFF:
            return _SHORT_HEAD.pack(tag >> 16, tag & 0xFFFF, code, length)
        code = b"UN"  # PS3.5 §6.2.2: a value too long for the length of its VR
    return _LONG_HEAD.pack(tag >> 16, tag & 0xFFFF, code, 0, length)


def _turned(value: Buffer, vr: str, pixel_bytes: int) -> Buffer:
    size = pixel_bytes if pixel_bytes and vr == "OW" else WORD_BYTES.get(vr, 1)
    if size not in _CODES:
        return value
    if len(value) % size:
        raise ValueError("words")
    words = array(_CODES[size], bytes(value))
    words.byteswap()
    return words.tobytes()


# ------------------------------------------------------------------------------------------------ VRs

_AMBIGUOUS = {"OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}


def _vr_of(tag: int, context: _Context) -> str:
    """The VR that Implicit VR leaves out: the dictionary's (PS3.6), pydicom's for private elements, else UN."""
    if tag >> 16 & 1:
        element = tag & 0xFFFF
        if 0x10 <= element <= 0xFF:
            return "LO"
        creator = context.creators.get(tag & 0xFFFFFF00)
        try:
            return private_dictionary_VR(tag, creator) if creator else "UN"
        except KeyError:
            return "UN"
    if not dictionary_has_tag(tag):
        return "UL" if not tag & 0xFFFF else "UN"
    vr = dictionary_VR(tag)
    if vr == "US or SS":
        return "SS" if context.signed else "US"
    return _AMBIGUOUS.get(vr, vr)


def _is_signed(source: _Source, pos: int, end: int) -> bool:
    """Pixel Representation of the whole, wanted also by what stands before it."""
    context = _Context()
    while end - pos >= 8:
        tag, _, length, start = source.head(pos, context)
        if tag >= PIXEL_REPRESENTATION or length == UNDEFINED:
            return tag == PIXEL_REPRESENTATION and length == 2 and source.number(start) == 1
        pos = start + length
    return False
