"""A dataset to its header: DICOM JSON (PS3.18 Annex F) without bulk data, the attributes that queries use, the frames.

One walk over the bytes, in which no value is copied that is not shown. Choices where the standard leaves one:

- Bulk data (§F.2.6) is a relative reference with the tag's path, `bulkdata/00540016/1/00181072`; whoever serves it
  makes it absolute. Pixel data always is; binary VRs above INLINE_BYTES_MAX; text and numbers above TEXT_BYTES_MAX.
- Group lengths (§F.2.2), elements of group 0002 and trailing padding are left out. Specific Character Set is ISO_IR
  192, which the JSON is in; `Header.character_set` has what the dataset says.
- Of an element that comes twice the first counts, as in `essentials`.
- An implicit or unknown VR is the dictionary's, for private elements that of pydicom's private dictionary, else UN. A
  value that cannot be of its VR is given as UN.

What passes `essentials` never makes `header_json` raise: what is damaged inside a sequence, or too much, leaves out
that one value and marks the header.
"""

import json
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Final

from producers.dicom.elements import (
    CHARACTER_SET,
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    PIXEL_TAGS,
    elements,
    layout_of,
)
from producers.dicom.frames import ATTRIBUTES, Frames, PixelElement, Span, locate
from producers.dicom.inflate import inflate
from producers.dicom.syntaxes import encoding_of
from producers.dicom.values import NotOfThisVR
from producers.dicom.walk import INLINE_BYTES_MAX, UTF_8, Level, TooMuch, Walk

# PS3.18 §10.6.3.3, Tables 10.6.3-3 to -5, and what the standard's queries match on besides.
STUDY_ATTRIBUTES: Final = frozenset(
    (0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080056, 0x00080061, 0x00080090, 0x00080201, 0x00081030)
) | {0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00100040, 0x0020000D, 0x00200010}
SERIES_ATTRIBUTES: Final = frozenset(
    (0x00080060, 0x0008103E, 0x00180015, 0x0020000E, 0x00200011, 0x00200060, 0x00400244, 0x00400245, 0x00400275)
)
INSTANCE_ATTRIBUTES: Final = frozenset(
    (0x00080005, 0x00080016, 0x00080018, 0x00200013, 0x00280008, 0x00280010, 0x00280011, 0x00280100)
)
QUERY_ATTRIBUTES: Final = STUDY_ATTRIBUTES | SERIES_ATTRIBUTES | INSTANCE_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class Header:
    """What the archive keeps of a dataset beside its bytes."""

    json: bytes
    """One DICOM JSON object, UTF-8."""
    attributes: dict[str, list[Any]]
    """The picked attributes of the top level that have a value: tag (`"0020000D"`) to their DICOM JSON values. Strings,
    numbers, None for an empty one of several; for PN objects of component groups, for SQ objects."""
    frames: Frames
    character_set: str
    """Specific Character Set as the dataset says it, values joined by backslashes; "" for none."""
    marks: tuple[str, ...]


def header_json(dataset: bytes | memoryview, transfer_syntax: str, *, pick: Set[int] = QUERY_ATTRIBUTES) -> Header:
    """The header of a dataset (without File Meta Information), with the attributes of `pick` as values.

    Raises Invalid as `essentials` does, and never when that did not.
    """
    view = memoryview(dataset).cast("B")
    marks: set[str] = set()
    encoding = encoding_of(transfer_syntax)
    if encoding.deflated:
        view = inflate(view, marks)
    layout = layout_of(view, encoding, marks)
    walk, level = Walk(view, layout, marks), Level(marks)
    found: dict[int, str] = {}
    pixel: PixelElement | None = None
    tables: dict[int, Span] = {}
    for entry, start, stop, undefined in elements(view, layout, marks):
        tag, encode = entry.tag, entry.encode
        if tag in found:
            continue
        if encode is None or undefined or stop - start > INLINE_BYTES_MAX:
            if tag in PIXEL_TAGS:
                pixel = PixelElement(tag, start, stop, undefined)
            elif tag in (EXTENDED_OFFSETS, EXTENDED_LENGTHS):
                tables[tag] = (start, stop - start)
            try:
                fragment, _ = walk.element(entry, start, stop, undefined, level, layout, "", 0)
            except TooMuch:
                marks.add("too-much-header")
                fragment = f"{entry.prefix}}}"
            if fragment:
                found[tag] = fragment
            continue
        try:
            found[tag] = f"{entry.prefix}{encode(view[start:stop].tobytes(), level)}}}"
        except NotOfThisVR:
            found[tag] = walk.unknown(tag, start, stop, level, layout, "")
    text = ",".join(found.values())
    if "unordered-tags" in marks or not (CHARACTER_SET in found or text.isascii()):
        if not text.isascii():
            found[CHARACTER_SET] = UTF_8
        text = ",".join([found[tag] for tag in sorted(found)])
    attributes = _values(found, pick | ATTRIBUTES)
    return Header(
        json=f"{{{text}}}".encode(),
        attributes={tag: values for tag, values in attributes.items() if int(tag, 16) in pick},
        frames=locate(view, pixel, tables, attributes, encoding, layout, marks),
        character_set=walk.character_set.decode("latin-1").strip(" \0"),
        marks=tuple(sorted(marks)),
    )


def _values(found: dict[int, str], tags: Set[int]) -> dict[str, list[Any]]:
    """The values of `tags` out of their attribute objects: what was written is read, the bytes are not parsed again."""
    picked = ",".join([found[tag] for tag in tags if tag in found])
    objects = json.loads(f"{{{picked}}}")
    return {tag: attribute["Value"] for tag, attribute in objects.items() if "Value" in attribute}
