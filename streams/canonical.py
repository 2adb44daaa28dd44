"""Whether two encodings of an instance say the same: a digest of a dataset without what senders change when they
re-encode (design, Corrections).

As if all were Explicit VR Little Endian with defined lengths: byte order and transfer syntax, lengths of sequences and
items, group lengths (PS3.5 §7.2), trailing padding (PS3.10 §7.2) and the padding of values make no difference, and
losslessly compressed frames are decoded. The VR itself is not compared: implicit and explicit encodings of a private
element differ in it. What cannot be decoded, and what was compressed with loss, is compared as it is encapsulated.

Pure, but the decoders are C code: call it in a process of its own.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pydicom.values import convert_SQ

from schemas.errors import Invalid

INFLATED_MAX = 1 << 30
DEPTH_MAX = 64

LOSSLESS = frozenset(
    (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL, RLELossless)
)
"""Transfer syntaxes whose frames have one decoding (PS3.5 §A.4). Lossy ones that may be lossless are not told apart."""

_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = BaseTag(0x7FE00010)
_SAMPLES, _PHOTOMETRIC, _PLANAR = BaseTag(0x00280002), BaseTag(0x00280004), BaseTag(0x00280006)
_FRAMES, _ROWS, _COLUMNS, _ALLOCATED = (BaseTag(t) for t in (0x00280008, 0x00280010, 0x00280011, 0x00280100))
# Length to End (retired), the two offset tables of encapsulated pixel data, Data Set Trailing Padding.
_IGNORED = frozenset((0x00080001, 0x7FE00001, 0x7FE00002, 0xFFFCFFFC))
_TEXT = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_WORD_BYTES = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}


def canonical(dataset: bytes, transfer_syntax: str) -> str:
    """SHA-256 of a dataset's canonical form, hex. Raises Invalid(`not-comparable`) when it cannot be read."""
    digest = hashlib.sha256()
    try:
        ds = _read(dataset, transfer_syntax)
        elements = _raw(ds)
        _hash(digest, ds, elements, 0, _frames(ds, elements, transfer_syntax) if _PIXEL_DATA in ds else None)
    except Invalid:
        raise
    except Exception as error:  # pydicom raises whatever the bytes make it
        raise Invalid("not-comparable") from error
    return digest.hexdigest()


def _read(dataset: bytes, transfer_syntax: str) -> Dataset:
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        dataset = inflater.decompress(dataset, INFLATED_MAX)
        if inflater.unconsumed_tail:
            raise Invalid("not-comparable")
    implicit = transfer_syntax == ImplicitVRLittleEndian
    return read_dataset(BytesIO(dataset), implicit, transfer_syntax != ExplicitVRBigEndian)


# ------------------------------------------------------------------------------------------------ elements


def _raw(ds: Dataset) -> dict[BaseTag, Any]:
    """The elements as they were read. Taken first: pydicom replaces some by their values when others are asked for."""
    return {tag: ds.get_item(tag) for tag in sorted(ds.keys()) if tag.element != 0 and tag not in _IGNORED}


def _hash(
    digest: Any, ds: Dataset, elements: dict[BaseTag, Any], depth: int, pixels: tuple[bytes, str] | None = None
) -> None:
    """`pixels`: digest of the decoded frames and what their photometric interpretation is."""
    if depth > DEPTH_MAX:
        raise Invalid("not-comparable")
    several_samples = pixels is not None and _number(ds, _SAMPLES, 1) > 1
    for tag, element in elements.items():
        if depth == 0 and pixels is not None:
            if tag == _PIXEL_DATA:
                _put(digest, tag, b"P", pixels[0])
                continue
            if tag == _PHOTOMETRIC:
                _put(digest, tag, b"V", pixels[1].encode())
                continue
            if tag == _PLANAR and several_samples:
                continue
        items = _items(ds, element)
        if items is None:
            _put(digest, tag, b"V", _value(element))
            continue
        _put(digest, tag, b"S", len(items).to_bytes(4, "little"))
        for item in items:
            _hash(digest, item, _raw(item), depth + 1)
            digest.update(b"]")


def _put(digest: Any, tag: BaseTag, kind: bytes, value: bytes) -> None:
    # Each value's length in front: no two lists of elements look alike.
    digest.update(struct.pack("<I1sQ", tag, kind, len(value)) + value)


def _vr(raw: RawDataElement) -> str:
    try:
        return dictionary_VR(raw.tag)
    except KeyError:  # private, or not in the dictionary of this pydicom
        return raw.VR or "UN"


def _items(ds: Dataset, raw: Any) -> list[Dataset] | None:
    """Items of a sequence; None for any other element."""
    if isinstance(raw, RawDataElement) and (vr := _vr(raw)) != "SQ":
        # A sequence whose VR the sender did not know (PS3.5 §6.2.2 note 2): implicit, little endian.
        if vr == "UN" and raw.value and raw.value.startswith(_ITEM):
            return list(convert_SQ(raw.value, True, True))
        return None
    element = ds[raw.tag]
    return list(element.value) if element.VR == "SQ" else None


def _value(raw: Any) -> bytes:
    if not isinstance(raw, RawDataElement):
        # pydicom reads sequences of undefined length and empty elements at once, and nothing else.
        if raw.value:
            raise Invalid("not-comparable")
        return b""
    value = raw.value or b""
    vr = _vr(raw)
    if not raw.is_little_endian and (width := _WORD_BYTES.get(raw.VR or vr, 1)) > 1:
        value = _swapped(value, width)
    if vr in _TEXT and not raw.tag.is_private:
        return value.rstrip(b" \0")
    return value + b"\0" * (len(value) % 2)


def _swapped(value: bytes, width: int) -> bytes:
    swapped = bytearray(len(value))
    for n in range(width):
        swapped[n::width] = value[width - 1 - n :: width]
    return bytes(swapped)


# ------------------------------------------------------------------------------------------------ pixels


def _frames(ds: Dataset, elements: dict[BaseTag, Any], transfer_syntax: str) -> tuple[bytes, str]:
    """(SHA-256 of all frames, photometric interpretation of what was hashed)."""
    photometric = _text(ds, _PHOTOMETRIC)
    if not UID(transfer_syntax).is_compressed or transfer_syntax == DeflatedExplicitVRLittleEndian:
        return _digest(_native(ds, _value(elements[_PIXEL_DATA]))), photometric
    if transfer_syntax in LOSSLESS:
        try:
            return _decoded(ds, transfer_syntax)
        except Exception:  # noqa: BLE001, S110 - no decoder, or none that can: then the code stream itself is compared
            pass
    encapsulated = bytes(elements[_PIXEL_DATA].value)
    # One padding byte may follow a code stream (PS3.5 §A.4).
    frames = (f.rstrip(b"\0") for f in generate_frames(encapsulated, number_of_frames=_number(ds, _FRAMES, 1)))
    return _digest(frames), photometric


def _decoded(ds: Dataset, transfer_syntax: str) -> tuple[bytes, str]:
    photometric = _text(ds, _PHOTOMETRIC)
    digest = hashlib.sha256()
    for frame, found in get_decoder(UID(transfer_syntax)).iter_buffer(ds, raw=True):
        photometric = str(found.get("photometric_interpretation", photometric))
        samples = int(found.get("samples_per_pixel", 1))
        planar = samples > 1 and int(found.get("planar_configuration", 0)) == 1
        digest.update(_interleaved(bytes(frame), samples, int(found["bits_allocated"]) // 8) if planar else frame)
    return digest.digest(), photometric


def _native(ds: Dataset, data: bytes) -> Iterator[bytes]:
    """Frames of native pixel data, samples interleaved, without what lies behind the last."""
    samples, allocated = _number(ds, _SAMPLES, 1), _number(ds, _ALLOCATED, 0)
    size = (_number(ds, _ROWS, 0) * _number(ds, _COLUMNS, 0) * samples * allocated + 7) // 8
    planar = samples > 1 and allocated % 8 == 0 and _number(ds, _PLANAR, 0) == 1
    if allocated < 8 or "422" in _text(ds, _PHOTOMETRIC) or not size:
        yield data
        return
    for n in range(_number(ds, _FRAMES, 1)):
        frame = data[n * size : (n + 1) * size]
        yield _interleaved(frame, samples, allocated // 8) if planar else frame


def _interleaved(frame: bytes, samples: int, width: int) -> bytes:
    """Planar configuration 1 → 0 (PS3.3 C.7.6.3.1.3)."""
    plane = len(frame) // samples
    out = bytearray(len(frame))
    for sample in range(samples):
        for byte in range(width):
            out[sample * width + byte :: samples * width] = frame[sample * plane + byte : (sample + 1) * plane : width]
    return bytes(out)


def _digest(frames: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame)
    return digest.digest()


def _number(ds: Dataset, tag: BaseTag, default: int) -> int:
    try:
        return int(ds[tag].value) if tag in ds else default
    except (TypeError, ValueError):  # empty, or no number
        return default


def _text(ds: Dataset, tag: BaseTag) -> str:
    return str(ds[tag].value or "") if tag in ds else ""
