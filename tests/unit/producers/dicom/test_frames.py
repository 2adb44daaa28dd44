"""Frame offsets: right, or none."""

import json
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_expected_length

from producers.dicom.frames import Frames
from producers.dicom.header import header_json
from producers.dicom.inflate import inflate
from producers.dicom.part10 import parse_file_meta
from producers.dicom.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, encoding_of
from tests.unit.producers.dicom.samples import INSTANCES, TEST_FILES, name_of

JPEG = "1.2.840.10008.1.2.4.70"
VIDEO = "1.2.840.10008.1.2.4.102"


def bytes_of(dataset: bytes | memoryview, frames: Frames) -> list[bytes]:
    return [
        b"".join(dataset[start : start + length] for start, length in frames.span(at)[0]) for at in range(frames.count)
    ]


# Pixel data that cannot be told apart, and why.
UNKNOWN = {
    "test_files/nested_priv_SQ.dcm": "no rows and columns",
    "test_files/badVR.dcm": "Number of Frames is `1A`",
}


@pytest.mark.parametrize("path", INSTANCES, ids=name_of)
def test_every_frame_of_every_file(path: Path) -> None:
    data = path.read_bytes()
    meta = parse_file_meta(data)
    dataset = memoryview(data)[meta.dataset_offset :]
    header = header_json(dataset, meta.transfer_syntax)
    if meta.transfer_syntax == DEFLATED_LE:
        dataset = inflate(dataset, set())
    theirs = pydicom.dcmread(BytesIO(data), force=True)
    if "PixelData" not in theirs:
        assert header.frames == Frames()
        return
    count = header.attributes.get("00280008", [1])[0]
    if name_of(path) in UNKNOWN:
        assert header.frames.count == 0
        assert "unknown-frames" in header.marks
        return
    assert header.frames.count == count
    assert "unknown-frames" not in header.marks
    if encoding_of(meta.transfer_syntax).encapsulated:
        assert header.frames.kind == "encapsulated"
        assert bytes_of(dataset, header.frames) == list(generate_frames(theirs.PixelData, number_of_frames=count))
    else:
        assert header.frames.kind == "native"
        length = header.frames.frame_bits // 8
        assert bytes_of(dataset, header.frames) == [
            theirs.PixelData[at * length : (at + 1) * length] for at in range(count)
        ]
        assert length * count == get_expected_length(theirs)


# ------------------------------------------------------------------------------------------------ built by hand


def element(tag: int, vr: str, value: bytes) -> bytes:
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("OB", "OW", "OV", "OF", "OD"):
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def fragments(*items: bytes) -> bytes:
    out = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    for item in items:
        out += b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
    return out + b"\xfe\xff\xdd\xe0\0\0\0\0"


def attributes(frames: int | bytes | None = None, **numbers: int) -> bytes:
    out = element(0x00080018, "UI", b"1.2\0")
    if frames is not None:
        out += element(0x00280008, "IS", frames if isinstance(frames, bytes) else b"%-4d" % frames)
    for tag, key in ((0x00280010, "rows"), (0x00280011, "columns"), (0x00280100, "bits")):
        if key in numbers:
            out += element(tag, "US", struct.pack("<H", numbers[key]))
    return out


def located(dataset: bytes, syntax: str = JPEG) -> tuple[list[bytes], tuple[str, ...]]:
    header = header_json(dataset, syntax)
    return bytes_of(dataset, header.frames), header.marks


def offsets(items: Sequence[bytes], first_of_each: Sequence[int]) -> list[int]:
    starts = [0]
    for item in items:
        starts.append(starts[-1] + 8 + len(item))
    return [starts[at] for at in first_of_each]


@given(
    st.lists(
        st.lists(st.binary(min_size=1, max_size=6).map(lambda b: b + b * (len(b) % 2)), min_size=1, max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_a_basic_offset_table_is_followed(frames: list[list[bytes]]) -> None:
    items = [item for frame in frames for item in frame]
    firsts = [sum(map(len, frames[:at])) for at in range(len(frames))]
    table = struct.pack(f"<{len(frames)}I", *offsets(items, firsts))
    found, marks = located(attributes(len(frames)) + fragments(table, *items))
    assert (found, marks) == ([b"".join(frame) for frame in frames], ())


@pytest.mark.parametrize("table", [[0, 8], [0, 10, 10], [2, 12], [10, 0], [0], [0, 10, 20], [0, 1 << 31]])
def test_a_wrong_basic_offset_table_is_not_followed(table: list[int]) -> None:
    raw = struct.pack(f"<{len(table)}I", *table)
    found, marks = located(attributes(2) + fragments(raw, b"ab", b"cd"))
    assert (found, marks) == ([b"ab", b"cd"], ("bad-offset-table",))
    assert located(attributes(2) + fragments(raw, b"ab", b"cd", b"ef"))[1] == ("bad-offset-table", "unknown-frames")


def extended(pairs: Sequence[tuple[int, int]]) -> bytes:
    return element(0x7FE00001, "OV", struct.pack(f"<{len(pairs)}Q", *[start for start, _ in pairs])) + element(
        0x7FE00002, "OV", struct.pack(f"<{len(pairs)}Q", *[length for _, length in pairs])
    )


def test_an_extended_offset_table_is_followed_to_the_byte() -> None:
    dataset = attributes(3) + extended([(0, 3), (12, 2), (22, 4)]) + fragments(b"", b"abc\0", b"de", b"fghi")
    assert located(dataset) == ([b"abc", b"de", b"fghi"], ())


@pytest.mark.parametrize(
    "pairs", [[(0, 3), (12, 2)], [(0, 5), (12, 2), (22, 4)], [(0, 3), (12, 2), (22, 2)], [(0, 3), (13, 2), (22, 4)], []]
)
def test_a_wrong_extended_offset_table_is_not_followed(pairs: list[tuple[int, int]]) -> None:
    dataset = attributes(3) + extended(pairs) + fragments(b"", b"abc\0", b"de", b"fghi")
    assert located(dataset) == ([b"abc\0", b"de", b"fghi"], ("bad-offset-table",))


def test_without_tables() -> None:
    items = [b"\xff\xd8aa", b"bb\xff\xd9", b"\xff\xd8c\xff\xd9\0"]
    assert located(attributes() + fragments(b"", *items)) == ([b"".join(items)], ())
    assert located(attributes(1) + fragments(b"", *items)) == ([b"".join(items)], ())
    assert located(attributes(3) + fragments(b"", *items)) == (items, ())
    assert located(attributes(2) + fragments(b"", *items)) == ([items[0] + items[1], items[2]], ())


@pytest.mark.parametrize(
    ("frames", "items"),
    [
        (4, [b"\xff\xd8aa", b"bb\xff\xd9"]),  # fewer fragments than frames
        (2, [b"\xff\xd8aa", b"bb\xff\xd9", b"\xff\xd8cc"]),  # the last image does not end
        (2, [b"\xff\xd8aa", b"bb\xff\xd9", b"cc", b"\xff\xd9"]),  # the second does not begin
        (2, [b"aa", b"bb", b"cc"]),  # no images
        (2, [b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xd9"]),  # three of them
        (b"x ", [b"aa"]),
        (0, [b"aa"]),
        (2, []),
    ],
)
def test_what_is_not_certain_is_not_said(frames: int | bytes, items: list[bytes]) -> None:
    found, marks = located(attributes(frames) + fragments(b"", *items))
    assert found == []
    assert "unknown-frames" in marks


def test_a_video_has_no_frames_to_read_by_range() -> None:
    header = header_json(attributes(2) + fragments(b"", b"ab", b"cd"), VIDEO)
    assert (header.frames.kind, header.frames.count, header.marks) == ("encapsulated", 0, ())
    assert header.frames.json() == b'{"encapsulated":[]}'


def test_frames_of_single_bits_share_bytes() -> None:
    rows, columns, count = 3, 3, 4
    pixels = bytes([0b10101011, 0b11110000, 0b00110011, 0b01010101, 0b00001111, 0])
    dataset = attributes(count, rows=rows, columns=columns, bits=1) + element(0x7FE00010, "OB", pixels)
    frames = header_json(dataset, EXPLICIT_LE).frames
    assert (frames.kind, frames.frame_bits, frames.count) == ("native", 9, 4)
    bits = [pixels[at // 8] >> at % 8 & 1 for at in range(8 * len(pixels))]
    for at in range(count):
        ((start, length),), skip = frames.span(at)
        raw = dataset[start : start + length]
        assert [raw[bit // 8] >> bit % 8 & 1 for bit in range(skip, skip + 9)] == bits[9 * at : 9 * at + 9]
    with pytest.raises(IndexError):
        frames.span(count)
    with pytest.raises(IndexError):
        frames.span(-1)


@pytest.mark.parametrize(
    ("photometric", "samples", "size"),
    [
        (b"MONOCHROME2 ", 1, 16),
        (b"RGB ", 3, 48),
        (b"YBR_FULL", 3, 48),
        (b"YBR_FULL_422", 3, 32),
        (b"YBR_PARTIAL_420 ", 3, 24),
    ],
)
def test_native_sizes(photometric: bytes, samples: int, size: int) -> None:
    dataset = (
        element(0x00280002, "US", struct.pack("<H", samples))
        + element(0x00280004, "CS", photometric)
        + attributes(2, rows=4, columns=4, bits=8)[12:]
        + element(0x7FE00010, "OB", bytes(range(2 * size)))
    )
    found, marks = located(dataset, EXPLICIT_LE)
    assert (found, marks) == ([bytes(range(size)), bytes(range(size, 2 * size))], ())


def test_float_pixel_data_is_pixel_data() -> None:
    for tag, vr, size in ((0x7FE00008, "OF", 4), (0x7FE00009, "OD", 8)):
        found, marks = located(attributes(2, rows=1, columns=2) + element(tag, vr, bytes(range(4 * size))), EXPLICIT_LE)
        assert (found, marks) == ([bytes(range(2 * size)), bytes(range(2 * size, 4 * size))], ())


@pytest.mark.parametrize("numbers", [{"rows": 4, "columns": 4}, {"rows": 4, "columns": 5, "bits": 8}, {}])
def test_native_pixel_data_that_does_not_fit(numbers: dict[str, int]) -> None:
    found, marks = located(attributes(1, **numbers) + element(0x7FE00010, "OB", bytes(16)), EXPLICIT_LE)
    assert (found, marks) == ([], ("unknown-frames",))


def test_big_endian_tables() -> None:
    swapped = (TEST_FILES / "ExplVR_BigEnd.dcm").read_bytes()
    meta = parse_file_meta(swapped)
    assert meta.transfer_syntax == EXPLICIT_BE
    assert header_json(swapped[meta.dataset_offset :], EXPLICIT_BE).frames.kind == "native"


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (Frames(), None),
        (Frames("native", 3, 100, 4096), {"native": [100, 4096, 3]}),
        (
            Frames("encapsulated", 2, 9, 0, (((17, 4),), ((29, 2), (39, 6)))),
            {"encapsulated": [[17, 4], [29, 2, 39, 6]]},
        ),
    ],
)
def test_json(frames: Frames, expected: Any) -> None:
    assert json.loads(frames.json()) == expected
