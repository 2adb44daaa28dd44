"""The DICOM file format (PS3.10 §7): read the File Meta Information of what came, write it for what came by C-STORE.

Reading is as tolerant as the field needs: no preamble, no or a wrong group length, Implicit VR, no File Meta at all.
Each tolerance leaves a mark (`reasons.MARKS`), so the bytes can be stored verbatim and still say how they were read.
What no reading makes DICOM raises `Invalid` with a key of `reasons.REASONS`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from pydicom.datadict import dictionary_has_tag

from producers.dicom.reasons import refuse
from producers.dicom.syntaxes import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, LONG_VRS, VRS
from schemas.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

FILE_META_BYTES_MAX: Final = 1 << 16
"""The first bytes of a file that hold its File Meta Information, the first element of the dataset included."""

_PREAMBLE_LENGTH: Final = 128
_MAGIC: Final = b"DICM"
_MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_UNDEFINED: Final = 0xFFFFFFFF

_SOP_CLASS: Final = 0x0002
_SOP_INSTANCE: Final = 0x0003
_TRANSFER_SYNTAX: Final = 0x0010
_IMPLEMENTATION_CLASS: Final = 0x0012
_IMPLEMENTATION_VERSION: Final = 0x0013
_SOURCE_AE: Final = 0x0016

_explicit_head: Final = Struct("<HH2sH").unpack_from
_implicit_head: Final = Struct("<HHI").unpack_from
_uint32: Final = Struct("<I").unpack_from
_tag_le: Final = Struct("<HH").unpack_from
_tag_be: Final = Struct(">HH").unpack_from


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What the File Meta Information says; "" for what it does not say. UIDs are as written, unchecked."""

    dataset_offset: int
    """Bytes from the start of the file to the first element of the dataset."""
    transfer_syntax: str
    """Never empty: where (0002,0010) is missing it is told from the dataset and marked."""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    source_ae_title: str = ""
    marks: tuple[str, ...] = ()


def parse_file_meta(head: bytes | memoryview) -> FileMeta:
    """The File Meta Information of a file that starts with `head`.

    `head` is the whole file or at least its first FILE_META_BYTES_MAX bytes. Raises Invalid: `not-dicom`, `truncated`,
    `file-meta-too-long`, `no-transfer-syntax`, `dicomdir`.
    """
    data = bytes(head[:FILE_META_BYTES_MAX])
    marks: list[str] = []
    start = _start(data, marks)
    values: dict[int, bytes] = {}
    end = start
    if _tag_le(data, start)[0] == 0x0002 if len(data) >= start + 4 else False:
        end = _read_group_2(data, start, len(head) > len(data), values, marks)
    else:
        marks.append("no-file-meta")
    sop_class = _text(values, _SOP_CLASS)
    if sop_class == _MEDIA_STORAGE_DIRECTORY:
        raise refuse("dicomdir")
    syntax = _text(values, _TRANSFER_SYNTAX)
    if not syntax:
        guess = _guess_transfer_syntax(data, end)
        if guess is None:
            raise refuse("no-transfer-syntax" if values else "not-dicom")
        syntax = guess
        marks.append("guessed-transfer-syntax")
    return FileMeta(
        dataset_offset=end,
        transfer_syntax=syntax,
        sop_class_uid=sop_class,
        sop_instance_uid=_text(values, _SOP_INSTANCE),
        implementation_class_uid=_text(values, _IMPLEMENTATION_CLASS),
        implementation_version_name=_text(values, _IMPLEMENTATION_VERSION),
        source_ae_title=_text(values, _SOURCE_AE),
        marks=tuple(marks),
    )


def encode_file_meta(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str = ""
) -> bytes:
    """Preamble, prefix and File Meta Information (PS3.10 §7.1) for a dataset that came by C-STORE.

    The UIDs are those of the command set (PS3.7 §9.3.1.1) and of the accepted presentation context; they are written as
    they came. Raises Invalid(`bad-file-meta-value`) for what cannot be written in File Meta Information.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(_SOP_CLASS, b"UI", _uid(sop_class_uid)),
            _element(_SOP_INSTANCE, b"UI", _uid(sop_instance_uid)),
            _element(_TRANSFER_SYNTAX, b"UI", _uid(transfer_syntax)),
            _element(_IMPLEMENTATION_CLASS, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(_IMPLEMENTATION_VERSION, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, 16, b" ")),
            _element(_SOURCE_AE, b"AE", _padded(source_ae_title.strip(" "), 16, b" "))
            if source_ae_title.strip(" ")
            else b"",
        )
    )
    length = _element(0x0000, b"UL", len(elements).to_bytes(4, "little"))
    return bytes(_PREAMBLE_LENGTH) + _MAGIC + length + elements


# ------------------------------------------------------------------------------------------------ reading


def _start(data: bytes, marks: list[str]) -> int:
    """Where group 0002, or a bare dataset, begins."""
    if data[_PREAMBLE_LENGTH : _PREAMBLE_LENGTH + 4] == _MAGIC:
        return _PREAMBLE_LENGTH + 4
    marks.append("no-preamble")
    return 4 if data[:4] == _MAGIC else 0


def _read_group_2(data: bytes, start: int, more: bool, values: dict[int, bytes], marks: list[str]) -> int:
    """Fill `values` with the elements of group 0002; where the group ends. `more`: the file goes on behind `data`."""
    explicit = data[start + 4 : start + 6] in VRS
    if not explicit:
        marks.append("implicit-file-meta")
    end = start
    said: int | None = None
    for element, value, end in _group_2(data, start, explicit, more):
        if element == 0x0000 and len(value) == 4:
            said = end + _uint32(value)[0]
        values.setdefault(element, value)
    if said is None:
        marks.append("no-group-length")
    elif said != end:
        marks.append("wrong-group-length")
    return end


def _group_2(data: bytes, pos: int, explicit: bool, more: bool) -> Iterator[tuple[int, bytes, int]]:
    """Element number, value and end of each element of group 0002 from `pos` on; the group length is not believed."""
    while pos + 8 <= len(data):
        if explicit:
            group, element, vr, length = _explicit_head(data, pos)
            start = pos + 8
            if group == 0x0002 and vr in LONG_VRS:
                if start + 4 > len(data):
                    raise refuse("file-meta-too-long" if more else "truncated")
                length = _uint32(data, start)[0]
                start += 4
        else:
            group, element, length = _implicit_head(data, pos)
            start = pos + 8
        if group != 0x0002:
            return
        pos = start + length
        if length == _UNDEFINED or (explicit and vr not in VRS):
            raise refuse("not-dicom")
        if pos > len(data):
            raise refuse("file-meta-too-long" if more else "truncated")
        yield element, data[start:pos], pos
    if pos < len(data) and (more or data[pos : pos + 2] == b"\x02\x00"):
        raise refuse("file-meta-too-long" if more else "truncated")


def _text(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("latin-1").strip(" \0")


def _guess_transfer_syntax(data: bytes, pos: int) -> str | None:
    """The uncompressed transfer syntax in which an element at `pos` makes sense, None when there is none.

    As DCMTK does it, by the tag's group and the VR of the first element, but strict enough that a text or an image in
    another format does not pass: the first element of a dataset is a known one of a low group and is not long.
    """
    if len(data) < pos + 8:
        return None
    vr = data[pos + 4 : pos + 6]
    little, big = _tag_le(data, pos), _tag_be(data, pos)
    if vr in VRS:
        if _opens_a_dataset(little):
            return EXPLICIT_LE
        return EXPLICIT_BE if _opens_a_dataset(big) else None
    length = _uint32(data, pos + 4)[0]
    return IMPLICIT_LE if _opens_a_dataset(little) and length <= FILE_META_BYTES_MAX else None


def _opens_a_dataset(tag: tuple[int, int]) -> bool:
    group, element = tag
    return 0x0004 <= group <= 0x0020 and group % 2 == 0 and (element == 0 or dictionary_has_tag(group << 16 | element))


# ------------------------------------------------------------------------------------------------ writing


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    head = b"\x02\x00" + element.to_bytes(2, "little") + vr
    if vr in LONG_VRS:
        return head + b"\0\0" + len(value).to_bytes(4, "little") + value
    return head + len(value).to_bytes(2, "little") + value


def _uid(text: str) -> bytes:
    return _padded(text.strip(" \0"), 64, b"\0")


def _padded(text: str, length_max: int, pad: bytes) -> bytes:
    if not text or len(text) > length_max or not text.isascii() or not text.isprintable() or "\\" in text:
        raise refuse("bad-file-meta-value")
    return text.encode("ascii") + pad * (len(text) % 2)
