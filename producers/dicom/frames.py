"""Where each frame of an instance's pixel data lies (PS3.5 §8.1.1, §A.4; PS3.3 §C.7.6.3): frames are read by range.

Only what is certain is given: a frame that cannot be told from the others has no offset, and the mark `unknown-frames`
says so. Offsets count from the start of the dataset; for the Deflated transfer syntax from that of the inflated one.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from sys import byteorder
from typing import Any, Final, Literal

from producers.dicom.elements import (
    DOUBLE_FLOAT_PIXEL_DATA,
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    FLOAT_PIXEL_DATA,
    ITEM,
    Layout,
)
from producers.dicom.syntaxes import Encoding

# The attributes that `locate` reads: photometric interpretation, samples, frames, rows, columns, bits allocated.
ATTRIBUTES: Final = frozenset((0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100))

# Samples stored for each pixel where chrominance is subsampled (PS3.3 §C.7.6.3.1.2), as (numerator, denominator).
_SUBSAMPLED: Final = {"YBR_FULL_422": (2, 1), "YBR_PARTIAL_422": (2, 1), "YBR_PARTIAL_420": (3, 2)}
# JPEG and JPEG-LS; the codestream of JPEG 2000.
_START_OF_IMAGE: Final = (b"\xff\xd8", b"\xff\x4f")
_END_OF_IMAGE: Final = b"\xff\xd9"

Span = tuple[int, int]
"""Offset and length in bytes."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The pixel data of one instance.

    As JSON (the manifest's `frames`): `null` for none; `{"native":[offset, bits, count]}`: `count` frames of `bits`
    bits each, one behind the other without a gap; `{"encapsulated":[[o,l],[o,l,o,l],…]}`: for each frame offset and
    length of its fragments (without item tags), an empty list where the frames are not known.
    """

    kind: Literal["native", "encapsulated", "none"] = "none"
    count: int = 0
    """Frames that `span` knows."""
    pixel_offset: int = 0
    """native: of the first frame; encapsulated: of the Basic Offset Table's item."""
    frame_bits: int = 0
    """native: of one frame; frames of single bits need not begin at a byte."""
    fragments: tuple[tuple[Span, ...], ...] = ()
    """encapsulated: of each frame."""

    def span(self, frame: int) -> tuple[tuple[Span, ...], int]:
        """The bytes of frame number `frame`, from 0, and how many bits of its first byte belong to the one before.

        Raises IndexError when there is no such frame.
        """
        if not 0 <= frame < self.count:
            raise IndexError(frame)
        if self.kind == "encapsulated":
            return self.fragments[frame], 0
        first, last = frame * self.frame_bits, (frame + 1) * self.frame_bits
        start = first // 8
        return ((self.pixel_offset + start, (last + 7) // 8 - start),), first % 8

    def json(self) -> bytes:
        """Compact JSON; see the class."""
        if self.kind == "native":
            return b'{"native":[%d,%d,%d]}' % (self.pixel_offset, self.frame_bits, self.count)
        if self.kind == "encapsulated":
            frames = (b"[%s]" % b",".join([b"%d,%d" % span for span in frame]) for frame in self.fragments)
            return b'{"encapsulated":[%s]}' % b",".join(frames)
        return b"null"


@dataclass(frozen=True, slots=True)
class PixelElement:
    """An element of PIXEL_TAGS where the walk found it."""

    tag: int
    start: int
    stop: int
    undefined: bool


def locate(
    view: memoryview,
    pixel: PixelElement | None,
    tables: Mapping[int, Span],
    attributes: Mapping[str, list[Any]],
    encoding: Encoding,
    layout: Layout,
    marks: set[str],
) -> Frames:
    """The frames of `pixel`.

    `tables`: the values of EXTENDED_OFFSETS and EXTENDED_LENGTHS as spans; `attributes`: those of ATTRIBUTES by their
    tags, as DICOM JSON values. Adds to `marks`.
    """
    if pixel is None or pixel.start == pixel.stop:
        return Frames()
    count = _integer(attributes, "00280008", 1)
    if pixel.undefined:
        fragments = _fragments(view, pixel, layout)
        frames = () if encoding.video else _grouped(view, fragments, tables, count, layout, marks)
        if not frames and not encoding.video:
            marks.add("unknown-frames")
        return Frames("encapsulated", len(frames), pixel.start, 0, frames)
    bits = 0 if encoding.encapsulated else _frame_bits(pixel.tag, attributes)
    there = 8 * (pixel.stop - pixel.start) // bits if bits > 0 else 0
    if there <= 0 or count <= 0:
        marks.add("unknown-frames")
        return Frames("native", 0, pixel.start)
    if there < count:  # cut short: those that are whole can be had
        marks.add("unknown-frames")
    return Frames("native", min(count, there), pixel.start, bits)


def _integer(attributes: Mapping[str, list[Any]], tag: str, default: int) -> int:
    """The value of an attribute, `default` when there is none, 0 when it is no number."""
    values = attributes.get(tag)
    if not values:
        return default
    return values[0] if isinstance(values[0], int) else 0


def _frame_bits(tag: int, attributes: Mapping[str, list[Any]]) -> int:
    """Bits of one native frame, 0 when an attribute is missing."""
    pixels = _integer(attributes, "00280010", 0) * _integer(attributes, "00280011", 0)
    if tag == FLOAT_PIXEL_DATA:
        return pixels * 32
    if tag == DOUBLE_FLOAT_PIXEL_DATA:
        return pixels * 64
    samples = _integer(attributes, "00280002", 1)
    photometric = attributes.get("00280004") or [""]
    stored, of = _SUBSAMPLED.get(photometric[0], (samples, 1)) if samples == 3 else (samples, 1)
    return pixels * _integer(attributes, "00280100", 0) * stored // of


# ------------------------------------------------------------------------------------------------ encapsulated


def _fragments(view: memoryview, pixel: PixelElement, layout: Layout) -> list[Span]:
    """Offset and length of the value of each item, the Basic Offset Table's first (PS3.5 §A.4).

    The walk has been over them: they are items up to the Sequence Delimitation Item.
    """
    spans = []
    pos = pixel.start
    while pos + 8 <= pixel.stop:
        group, element, length = layout.tag(view, pos)
        if group << 16 | element != ITEM or pos + 8 + length > pixel.stop:
            break
        spans.append((pos + 8, length))
        pos += 8 + length
    return spans


def _grouped(
    view: memoryview, items: list[Span], tables: Mapping[int, Span], count: int, layout: Layout, marks: set[str]
) -> tuple[tuple[Span, ...], ...]:
    """The fragments of each frame, nothing when that is not certain."""
    if len(items) < 2:
        return ()
    table, fragments = items[0], items[1:]
    by_offset = {start - fragments[0][0]: at for at, (start, _) in enumerate(fragments)}
    if EXTENDED_OFFSETS in tables:
        offsets = _table(view, tables[EXTENDED_OFFSETS], "Q", layout)
        lengths = _table(view, tables.get(EXTENDED_LENGTHS, (0, 0)), "Q", layout)
        starts = _starts(offsets, by_offset, count)
        # One fragment a frame (PS3.3 §C.7.6.3.1.8); the length leaves out the padding byte.
        if (
            starts
            and len(starts) == len(fragments) == len(lengths)
            and all(0 <= length - said <= 1 for (_, length), said in zip(fragments, lengths, strict=True))
        ):
            return tuple(((start, said),) for (start, _), said in zip(fragments, lengths, strict=True))
        marks.add("bad-offset-table")
    if table[1]:
        starts = _starts(_table(view, table, "I", layout), by_offset, count)
        if starts:
            ends = [*starts[1:], len(fragments)]
            return tuple(tuple(fragments[first:end]) for first, end in zip(starts, ends, strict=True))
        marks.add("bad-offset-table")
    if count == 1:
        return (tuple(fragments),)
    if len(fragments) == count:
        return tuple((fragment,) for fragment in fragments)
    return _by_end_markers(view, fragments, count)


def _table(view: memoryview, span: Span, code: Literal["I", "Q"], layout: Layout) -> list[int]:
    """The unsigned integers of an offset table; none when it is damaged."""
    values = array(code)
    raw = view[span[0] : span[0] + span[1]]
    if len(raw) % values.itemsize:
        return []
    values.frombytes(raw)
    if (byteorder == "little") != layout.little:
        values.byteswap()
    return values.tolist()


def _starts(offsets: list[int], by_offset: Mapping[int, int], count: int) -> list[int]:
    """The number of the first fragment of each frame; none when the table does not point to the fragments in order."""
    starts = [by_offset.get(offset, -1) for offset in offsets]
    good = len(starts) == count and starts[0] == 0 and all(first < second for first, second in pairwise(starts))
    return starts if good else []


def _by_end_markers(view: memoryview, fragments: list[Span], count: int) -> tuple[tuple[Span, ...], ...]:
    """Frames that begin and end as images of the JPEG family do; none unless that gives exactly `count`.

    The end marker cannot stand inside their entropy-coded data; behind it there is padding only.
    """
    frames: list[tuple[Span, ...]] = []
    frame: list[Span] = []
    for start, length in fragments:
        if not frame and view[start : start + 2].tobytes() not in _START_OF_IMAGE:
            return ()
        frame.append((start, length))
        if _END_OF_IMAGE in view[start + max(0, length - 10) : start + length].tobytes():
            frames.append(tuple(frame))
            frame = []
    return tuple(frames) if not frame and len(frames) == count else ()
