"""The bytes of a dataset as data elements (PS3.5 §7): layouts, tags, lengths, and how to pass over a value.

Everything reads from a memoryview and copies no value. Positions are bytes from the start of the dataset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

from pydicom.datadict import dictionary_VR

from producers.dicom.reasons import refuse
from producers.dicom.syntaxes import LONG_VRS, VRS, Encoding
from producers.dicom.values import BIG, LITTLE, Encode, Order

UNDEFINED: Final = 0xFFFFFFFF
DEPTH_MAX: Final = 64
"""Of sequences of undefined length inside each other, which cannot be passed over by their length."""
ELEMENTS_MAX: Final = 1 << 16
"""Elements of the top level of a dataset: what is repeated sits in sequences."""

ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD

CHARACTER_SET: Final = 0x00080005
PIXEL_REPRESENTATION: Final = 0x00280103
LUT_DESCRIPTOR: Final = 0x00283002
EXTENDED_OFFSETS: Final = 0x7FE00001
EXTENDED_LENGTHS: Final = 0x7FE00002
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
PIXEL_DATA: Final = 0x7FE00010
TRAILING_PADDING: Final = 0xFFFCFFFC
PIXEL_TAGS: Final = frozenset((FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA))
SPECIAL_TAGS: Final = PIXEL_TAGS | {
    CHARACTER_SET,
    PIXEL_REPRESENTATION,
    LUT_DESCRIPTOR,
    EXTENDED_OFFSETS,
    EXTENDED_LENGTHS,
    TRAILING_PADDING,
}


class Form(IntEnum):
    """Where an element's length stands."""

    SHORT = 0  # with the tag and VR, or the tag: what the layout's head unpacked is the length
    LONG = 1  # explicit VR: 32 bits behind two reserved bytes
    NO_VR = 2  # an element of Implicit VR in a dataset of Explicit VR
    DELIMITER = 3  # group FFFE: no element of a dataset


class Entry(NamedTuple):
    """What tag and VR bytes say about an element."""

    tag: int
    vr: str
    """Of PS3.5 §6.2, or the dictionary's words where it allows several ("US or SS"); "" for a private tag without."""
    form: Form
    marks: tuple[str, ...] = ()
    prefix: str = ""
    """What its attribute object begins with in DICOM JSON: `"00100020":{"vr":"LO"`."""
    encode: Encode | None = None
    """The value field to what follows; None where the tag or the VR needs more than the bytes of the value."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to encode elements: VR explicit or not, and the byte order."""

    explicit: bool
    little: bool
    head: Callable[..., tuple[Any, ...]]
    """(key, length) of the eight bytes at a position; the key is the bytes of tag and VR, or of the tag."""
    uint32: Callable[..., tuple[Any, ...]]
    tag: Callable[..., tuple[Any, ...]]
    entry: Callable[[bytes], Entry]


# ------------------------------------------------------------------------------------------------ the dictionary


def public_vr(tag: int) -> str:
    """VR of a public tag by the dictionary of PS3.6, retired and repeating groups included; UN for an unknown one."""
    if tag & 0xFFFF == 0:
        return "UL"  # group length
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    return "UN" if vr == "NONE" else vr


def _entry(tag: int, vr: str, form: Form, order: Order, marks: tuple[str, ...] = ()) -> Entry:
    plain = vr not in ("SQ", "UN") and not _is_special(tag)
    encode = (LITTLE if order == "little" else BIG).get(vr) if plain else None
    return Entry(tag, vr, form, marks, f'"{tag:08X}":{{"vr":"{vr}"', encode)


def _is_special(tag: int) -> bool:
    """Whether reading the rest of the dataset depends on this value, or the header gives it in a way of its own."""
    element = tag & 0xFFFF
    return (
        element == 0  # group length
        or (tag >> 16 & 1 == 1 and 0x10 <= element <= 0xFF)  # private creator
        or tag in SPECIAL_TAGS
    )


def _explicit_entry(key: bytes, order: Order) -> Entry:
    tag = _tag_of(key, order)
    vr = key[4:6]
    if tag >> 16 == 0xFFFE:
        return Entry(tag, "", Form.DELIMITER)
    if vr in VRS:
        return _entry(tag, vr.decode("ascii"), Form.LONG if vr in LONG_VRS else Form.SHORT, order)
    # As DCMTK: capitals are a VR of a later edition, whose length has 32 bits (PS3.5 §7.1.2); other printable
    # characters ("??") come from old devices with 16; anything else is no VR but the length of an element without one.
    if vr.isalpha() and vr.isupper():
        return _entry(tag, "UN", Form.LONG, order, ("unknown-vr",))
    if vr.isascii() and vr.decode("ascii").isprintable():
        return _entry(tag, "UN", Form.SHORT, order, ("unknown-vr",))
    return _entry(tag, "" if tag >> 16 & 1 else public_vr(tag), Form.NO_VR, order, ("unknown-vr",))


def _tag_of(key: bytes, order: Order) -> int:
    if order == "little":
        return key[1] << 24 | key[0] << 16 | key[3] << 8 | key[2]
    return int.from_bytes(key[:4], "big")


@lru_cache(maxsize=1 << 14)
def _explicit_le(key: bytes) -> Entry:
    return _explicit_entry(key, "little")


@lru_cache(maxsize=1 << 12)
def _explicit_be(key: bytes) -> Entry:
    return _explicit_entry(key, "big")


@lru_cache(maxsize=1 << 14)
def _implicit_le(key: bytes) -> Entry:
    tag = _tag_of(key, "little")
    if tag >> 16 == 0xFFFE:
        return Entry(tag, "", Form.DELIMITER)
    return _entry(tag, "" if tag >> 16 & 1 else public_vr(tag), Form.SHORT, "little")


def _unpacker(form: str) -> Callable[..., tuple[Any, ...]]:
    return Struct(form).unpack_from


EXPLICIT_LITTLE: Final = Layout(True, True, _unpacker("<6sH"), _unpacker("<I"), _unpacker("<HHI"), _explicit_le)
EXPLICIT_BIG: Final = Layout(True, False, _unpacker(">6sH"), _unpacker(">I"), _unpacker(">HHI"), _explicit_be)
IMPLICIT_LITTLE: Final = Layout(False, True, _unpacker("<4sI"), _unpacker("<I"), _unpacker("<HHI"), _implicit_le)


def layout_of(view: memoryview, encoding: Encoding, marks: set[str]) -> Layout:
    """The layout that the first element shows; marked where it is not the one of the transfer syntax."""
    said = IMPLICIT_LITTLE if not encoding.explicit else EXPLICIT_LITTLE if encoding.little else EXPLICIT_BIG
    if len(view) < 8:
        return said
    if bytes(view[4:6]) not in VRS:
        seen = IMPLICIT_LITTLE
        if said.explicit and bytes(view[4:6]).isalpha():
            seen = said  # a VR of a later edition
    else:
        # A group of 0x0100 and above in one order is one below in the other; datasets begin below.
        group = said.tag(view, 0)[0]
        swapped = (group & 0xFF) << 8 | group >> 8
        little = said.little if group <= swapped else not said.little
        seen = EXPLICIT_LITTLE if little else EXPLICIT_BIG
    if seen is not said:
        marks.add("wrong-transfer-syntax")
    return seen


def item_layout(view: memoryview, pos: int, layout: Layout) -> Layout:
    """The layout of a sequence item whose dataset begins at `pos`.

    Writers switch to Implicit VR inside sequences, as PS3.5 §6.2.2 has it for UN of undefined length.
    """
    vr = view[pos + 4 : pos + 6]
    if layout.explicit and len(vr) == 2 and not (0x41 <= vr[0] <= 0x5A and 0x41 <= vr[1] <= 0x5A):
        return IMPLICIT_LITTLE if layout.little else layout
    return layout


def sequence_layout(layout: Layout, vr: str) -> Layout:
    """The layout of the items of an element of `vr`: those of UN are little endian in any dataset (PS3.5 §6.2.2)."""
    return EXPLICIT_LITTLE if vr == "UN" and layout.explicit else layout


def value_of(view: memoryview, pos: int, end: int, layout: Layout, key: bytes, length: int) -> tuple[Entry, int, int]:
    """Entry, start of the value and length of the element whose head at `pos` gave (key, length)."""
    entry = layout.entry(key)
    form = entry.form
    if form is Form.SHORT:
        return entry, pos + 8, length
    if form is Form.LONG:
        if pos + 12 > end:
            raise refuse("truncated")
        return entry, pos + 12, layout.uint32(view, pos + 8)[0]
    return entry, pos + 8, layout.uint32(view, pos + 4)[0]


def skip_undefined(view: memoryview, pos: int, end: int, layout: Layout) -> int:
    """Where the value of undefined length that begins at `pos` ends, its Sequence Delimitation Item included.

    Sequences (PS3.5 §7.5) and encapsulated pixel data (§A.4) alike. Raises Invalid: `truncated`, `damaged-structure`,
    `too-deep`.
    """
    open_items: list[tuple[Layout, Layout]] = []  # (layout of the sequence, of the item) for each item not closed yet
    items = layout
    inside: Layout | None = None  # of the item whose elements are next; None: an item or the sequence's end is next
    while pos + 8 <= end:
        if inside is None:
            group, element, length = items.tag(view, pos)
            tag = group << 16 | element
            pos += 8
            if tag == ITEM and length == UNDEFINED:
                inside = item_layout(view, pos, items)
            elif tag == ITEM:
                pos += length
            elif tag == SEQUENCE_END:
                if not open_items:
                    return pos
                items, inside = open_items.pop()
            else:
                raise refuse("damaged-structure")
            continue
        key, length = inside.head(view, pos)
        entry, start, length = value_of(view, pos, end, inside, key, length)
        if entry.tag == ITEM_END:
            inside = None
            pos += 8
        elif entry.form is Form.DELIMITER:
            raise refuse("damaged-structure")
        elif length == UNDEFINED:
            if len(open_items) + 1 >= DEPTH_MAX:
                raise refuse("too-deep")
            open_items.append((items, inside))
            items, inside, pos = sequence_layout(inside, entry.vr), None, start
        else:
            pos = start + length
    raise refuse("truncated")


def elements(view: memoryview, layout: Layout, marks: set[str]) -> Iterator[tuple[Entry, int, int, bool]]:
    """Each element of a dataset as it comes: entry, start and stop of its value, and whether its length is undefined.

    Marks what is out of order or not an element. Raises Invalid: `truncated`, `damaged-structure`, `too-deep`,
    `too-many-elements`, and `not-dicom` for an empty dataset.
    """
    head, entry_of, end, short = layout.head, layout.entry, len(view), Form.SHORT
    pos, last_tag, count = 0, -1, 0
    while pos + 8 <= end:
        key, length = head(view, pos)
        entry = entry_of(key)
        start = pos + 8
        if entry.form is not short:
            if entry.form is Form.DELIMITER:
                raise refuse("damaged-structure")
            entry, start, length = value_of(view, pos, end, layout, key, length)
        tag = entry.tag
        if tag <= last_tag:
            if tag == 0 and only_zeros(view[pos:]):
                break  # a dataset padded to the block of a medium
            marks.add("unordered-tags")
        last_tag = tag
        if undefined := length == UNDEFINED:
            pos = skip_undefined(view, start, end, sequence_layout(layout, entry.vr))
        else:
            pos = start + length
            if pos > end:
                raise refuse("truncated")
        count += 1
        if count > ELEMENTS_MAX:
            raise refuse("too-many-elements")
        if entry.marks:
            marks.update(entry.marks)
        yield entry, start, pos, undefined
    if not count:
        raise refuse("truncated" if end else "not-dicom")
    if pos < end:
        if not only_zeros(view[pos:]):
            raise refuse("truncated")
        marks.add("trailing-bytes")


def only_zeros(view: memoryview) -> bool:
    """Whether nothing but zeros follows."""
    return all(not view[at : at + 4096].tobytes().strip(b"\0") for at in range(0, len(view), 4096))
