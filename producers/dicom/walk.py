"""The elements of a dataset to their DICOM JSON attribute objects, nested ones included (PS3.18 §F.2.2).

`elements` finds the elements of the top level and their ends; here is what each becomes. An element in a sequence needs
no end from outside: items are read until their delimiter or their length.
"""

from functools import lru_cache
from typing import Final

from pydicom.datadict import private_dictionary_VR

from producers.dicom.charsets import character_set
from producers.dicom.elements import (
    CHARACTER_SET,
    DEPTH_MAX,
    ITEM,
    ITEM_END,
    LUT_DESCRIPTOR,
    PIXEL_REPRESENTATION,
    PIXEL_TAGS,
    SEQUENCE_END,
    TRAILING_PADDING,
    UNDEFINED,
    Entry,
    Form,
    Layout,
    elements,
    item_layout,
    only_zeros,
    public_vr,
    sequence_layout,
    skip_undefined,
    value_of,
)
from producers.dicom.reasons import refuse
from producers.dicom.values import BIG, BINARY_VRS, BULK_VRS, LITTLE, NotOfThisVR, Text
from schemas.errors import Invalid

INLINE_BYTES_MAX: Final = 1 << 10
TEXT_BYTES_MAX: Final = 1 << 16
HEADER_BYTES_MAX: Final = 1 << 26
"""Of the values in sequences, and _ELEMENT_COST for each element and item: 64 MiB, a million elements."""
_ELEMENT_COST: Final = 1 << 6

_LUT_DATA: Final = 0x00283006


class TooMuch(Exception):
    """The values in sequences have passed HEADER_BYTES_MAX."""


class Level(Text):
    """What elements of one dataset, or item, mean for those behind and below them."""

    __slots__ = ("creators", "lut_entries", "outer", "signed")

    def __init__(self, marks: set[str], outer: "Level | None" = None) -> None:
        super().__init__(marks)
        if outer:
            self.charset = outer.charset  # PS3.5 §7.5.3: items inherit it
        self.outer = outer
        self.creators: dict[int, str] = {}
        self.signed: bool | None = None
        self.lut_entries = 0


@lru_cache(maxsize=1 << 12)
def _private_vr(tag: int, creator: str) -> str:
    """VR of a private element whose block `creator` has reserved (PS3.5 §7.8.1), "" when the dictionary has it not."""
    try:
        return private_dictionary_VR(tag, creator).replace("OB_OW", "OB or OW")
    except KeyError:
        return ""


class Walk:
    """One walk over one dataset; keeps what the whole of it has used up."""

    def __init__(self, view: memoryview, layout: Layout, marks: set[str]) -> None:
        self.view = view
        self.layout = layout
        self.marks = marks
        self.character_set = b""
        """Of the top level, as it stands there."""
        self._left = HEADER_BYTES_MAX
        self._signed: bool | None = None

    def element(
        self, entry: Entry, start: int, stop: int, undefined: bool, level: Level, layout: Layout, path: str, depth: int
    ) -> tuple[str, int]:
        """The attribute object of any element, "" when the header leaves it out, and where its value ends.

        With `undefined`, `stop` is only the bound of what is around. Raises Invalid when a value of undefined length
        does not end before it, and TooMuch.
        """
        tag, vr = entry.tag, entry.vr
        layout = sequence_layout(layout, vr)
        if tag & 0xFFFF == 0 or tag >> 16 == 0x0002 or tag == TRAILING_PADDING:
            return "", self._end(start, stop, undefined, layout)
        if tag >> 16 & 1:
            vr = self._private(tag, vr, start, stop, level)
        elif vr == "UN":
            vr = public_vr(tag)  # written by a node that did not know the tag (PS3.5 §6.2.2)
        if vr == "SQ" or (undefined and vr == "UN"):
            return self._sequence(entry, start, stop, undefined, level, layout, path, depth)
        stop = self._end(start, stop, undefined, layout)
        if " or " in vr:
            vr = self._resolved(tag, vr, undefined, level)
        return self._plain(tag, vr, start, stop, undefined, level, layout, path), stop

    def item(
        self, pos: int, end: int, delimited: bool, level: Level, layout: Layout, path: str, depth: int
    ) -> tuple[str, int]:
        """The JSON object of the item whose dataset begins at `pos`, and where it ends: at `end`, or its delimiter."""
        view, head, entry_of = self.view, layout.head, layout.entry
        found: dict[int, str] = {}
        last_tag, ordered = -1, True
        while pos + 8 <= end:
            key, length = head(view, pos)
            entry = entry_of(key)
            start = pos + 8
            if entry.form is not Form.SHORT:
                if entry.tag == ITEM_END:
                    # Some writers close items of defined length too.
                    return _object(found, ordered), start if delimited else end
                if entry.form is Form.DELIMITER:
                    raise refuse("damaged-structure")
                entry, start, length = value_of(view, pos, end, layout, key, length)
            tag, encode = entry.tag, entry.encode
            undefined = length == UNDEFINED
            pos = end if undefined else start + length
            if pos > end:
                raise refuse("truncated")
            self._left -= _ELEMENT_COST
            if self._left < 0:
                raise TooMuch
            if encode is None or undefined or length > INLINE_BYTES_MAX:
                fragment, pos = self.element(entry, start, pos, undefined, level, layout, path, depth)
            else:
                self._left -= length
                try:
                    fragment = f"{entry.prefix}{encode(view[start:pos].tobytes(), level)}}}"
                except NotOfThisVR:
                    fragment = self.unknown(tag, start, pos, level, layout, path)
            if tag <= last_tag:
                ordered = False
                self.marks.add("unordered-tags")
            last_tag = tag
            if entry.marks:
                self.marks.update(entry.marks)
            if fragment and tag not in found:
                found[tag] = fragment
        if delimited or not only_zeros(view[pos:end]):
            raise refuse("truncated")
        return _object(found, ordered), end

    def unknown(self, tag: int, start: int, stop: int, level: Level, layout: Layout, path: str) -> str:
        """The attribute object of an element whose bytes cannot be of the VR they are said to have."""
        self.marks.add("bad-value-length")
        return self._plain(tag, "UN", start, stop, False, level, layout, path)

    def _end(self, start: int, stop: int, undefined: bool, layout: Layout) -> int:
        return skip_undefined(self.view, start, stop, layout) if undefined else stop

    # -------------------------------------------------------------------------------------------- sequences

    def _sequence(
        self,
        entry: Entry,
        start: int,
        stop: int,
        undefined: bool,
        level: Level,
        layout: Layout,
        path: str,
        depth: int,
    ) -> tuple[str, int]:
        tag = entry.tag
        prefix = f'"{tag:08X}":{{"vr":"SQ"'
        try:
            if depth >= DEPTH_MAX:
                raise refuse("too-deep")
            items, end = self._items(start, stop, undefined, level, layout, f"{path}{tag:08X}/", depth)
        except Invalid:
            if undefined:
                # The walk that found the end of the outermost one does not look into items of defined length.
                end = skip_undefined(self.view, start, stop, layout)
            elif entry.vr in ("UN", ""):
                # The dictionary's guess at bytes of an unknown VR was wrong.
                return self._plain(tag, "UN", start, stop, False, level, layout, path), stop
            else:
                end = stop
            self.marks.add("damaged-sequence")
            return prefix + "}", end
        return f'{prefix},"Value":[{",".join(items)}]}}' if items else prefix + "}", end if undefined else stop

    def _items(
        self, pos: int, stop: int, undefined: bool, level: Level, layout: Layout, path: str, depth: int
    ) -> tuple[list[str], int]:
        """The items from `pos` on, and where the sequence ends (PS3.5 §7.5)."""
        view = self.view
        items: list[str] = []
        while pos + 8 <= stop:
            group, element, length = layout.tag(view, pos)
            pos += 8
            tag = group << 16 | element
            if tag == SEQUENCE_END:
                return items, pos
            if tag != ITEM:
                raise refuse("damaged-structure")
            end = stop if length == UNDEFINED else pos + length
            if end > stop:
                raise refuse("truncated")
            self._left -= _ELEMENT_COST
            if self._left < 0:
                raise TooMuch
            inside = item_layout(view, pos, layout) if end > pos else layout
            item, pos = self.item(
                pos, end, length == UNDEFINED, Level(self.marks, level), inside, f"{path}{len(items) + 1}/", depth + 1
            )
            items.append(item)
        if undefined or not only_zeros(view[pos:stop]):
            raise refuse("truncated")
        return items, stop

    # -------------------------------------------------------------------------------------------- other values

    def _plain(
        self, tag: int, vr: str, start: int, stop: int, undefined: bool, level: Level, layout: Layout, path: str
    ) -> str:
        """The attribute object of an element that is no sequence."""
        if tag == CHARACTER_SET:
            return self._character_set(start, stop, level)
        prefix = f'"{tag:08X}":{{"vr":"{vr}"'
        length = stop - start
        if length == 0:
            return prefix + "}"
        bulk = undefined or tag in PIXEL_TAGS or length > (INLINE_BYTES_MAX if vr in BINARY_VRS else TEXT_BYTES_MAX)
        self._left -= 0 if bulk else length
        if self._left < 0:
            self.marks.add("too-much-header")
            bulk = True
        if bulk and vr in BULK_VRS:
            return f'{prefix},"BulkDataURI":"bulkdata/{path}{tag:08X}"}}'
        if self._left < 0:
            return prefix + "}"
        raw = self.view[start:stop].tobytes()
        try:
            value = (LITTLE if layout.little else BIG)[vr](raw, level)
        except NotOfThisVR:
            return self.unknown(tag, start, stop, level, layout, path)
        if tag == PIXEL_REPRESENTATION:
            level.signed = any(raw)
        elif tag == LUT_DESCRIPTOR:
            level.lut_entries = int.from_bytes(raw[:2], "little" if layout.little else "big")
        return f"{prefix}{value}}}"

    def _character_set(self, start: int, stop: int, level: Level) -> str:
        """Text behind it is read by it; the JSON itself is UTF-8 and says so once."""
        raw = self.view[start : min(stop, start + INLINE_BYTES_MAX)].tobytes()
        level.charset = character_set(raw)
        self.marks.update(level.charset.marks)
        if level.outer is not None:
            return ""
        self.character_set = raw
        return UTF_8

    def _private(self, tag: int, vr: str, start: int, stop: int, level: Level) -> str:
        """VR of a private element (PS3.5 §7.8.1)."""
        element = tag & 0xFFFF
        if 0x10 <= element <= 0xFF:
            if stop - start <= INLINE_BYTES_MAX and tag not in level.creators:
                level.creators[tag] = self.view[start:stop].tobytes().decode("latin-1").strip(" \0")
            return vr if vr not in ("", "UN") else "LO"
        if vr not in ("", "UN"):
            return vr
        creator = level.creators.get(tag & 0xFFFF0000 | element >> 8)
        return (creator and _private_vr(tag, creator)) or "UN"

    def _resolved(self, tag: int, vr: str, undefined: bool, level: Level) -> str:
        """One VR for an element of which the dictionary allows several (PS3.5 §A.1; PS3.3 §C.7.6.3.1.5, §C.11.1)."""
        if vr == "US or SS":
            return "SS" if self._is_signed(level) else "US"
        if tag == _LUT_DATA and level.lut_entries == 1:
            return "US"
        return "OB" if undefined else "OW"

    def _is_signed(self, level: Level) -> bool:
        at: Level | None = level
        while at is not None:
            if at.signed is not None:
                return at.signed
            at = at.outer
        if self._signed is None:
            self._signed = self._look_ahead()
        return self._signed

    def _look_ahead(self) -> bool:
        """Pixel Representation of the top level, which sequences before it need already."""
        for entry, start, stop, _ in elements(self.view, self.layout, set()):
            if entry.tag == PIXEL_REPRESENTATION:
                return any(self.view[start:stop])
        return False


UTF_8: Final = '"00080005":{"vr":"CS","Value":["ISO_IR 192"]}'


def _object(found: dict[int, str], ordered: bool) -> str:
    """Attributes in ascending order of their tags (PS3.18 §F.2.2)."""
    return f"{{{','.join(found.values() if ordered else [found[tag] for tag in sorted(found)])}}}"
