"""What a decoder's process does: pixel data decoded, encoded, rendered by pydicom's plug-ins. Pure of the network.

Here runs C code that has seen the world's DICOM. What goes wrong leaves as the kind of an error, never as its text,
which quotes values.
"""

from __future__ import annotations

import io
import logging
import resource
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

from consumers.api import image
from consumers.api.look import Look, OutsideImage
from consumers.report_pdf.sheet import Sheet
from infra.process import die_with_parent

OUTPUT_MAX = 512 << 20
"""Bytes of decoded pixels."""
SUBSAMPLED = "YBR_FULL_422"
MEMORY_MAX = 4 << 30
"""Bytes of address space of a process: what a file claims to need beyond is an error of that file."""

T = TypeVar("T")


class Undecodable(Exception):
    """The kind of what went wrong."""


class Absent(Exception):
    """There is no such element, or none with a value in bytes."""


class TooLarge(Exception):
    """Decoded, it would not fit."""


def begin() -> None:
    """Once in each process."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # pydicom says what it finds in a dataset, values included.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def explicit(part10: bytes) -> bytes:
    """A Part 10 file with compressed pixel data as Explicit VR Little Endian."""
    return _guarded(lambda: _written(_native(part10)))


def jpeg2000(part10: bytes) -> bytes:
    """A Part 10 file in little endian as JPEG 2000 lossless (PS3.5 §8.2.4, §A.4.4)."""

    def work() -> bytes:
        ds = _read(part10)
        if UID(ds.file_meta.TransferSyntaxUID).is_encapsulated:
            ds = _read(_written(_native(part10)))
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        return _written(ds)

    return _guarded(work)


def printed(sheet: Sheet) -> bytes:
    """A report's PDF."""
    from consumers.report_pdf.page import render  # fonts and shaping: only where one is made

    return render(sheet)


def frames(part10: bytes, numbers: Sequence[int] | None) -> list[bytes]:
    """Frames, from 0, decoded; None: all."""
    return _guarded(lambda: _decoded(_read(part10), numbers)[0])


def frame(head: bytes, stored: bytes) -> bytes:
    """A stored frame, decoded; `head` is the beginning of its file, before the pixel data."""

    def work() -> bytes:
        ds = pydicom.dcmread(io.BytesIO(head), force=True, stop_before_pixels=True)
        image.attach(ds, stored, image.pixel_vr(head))
        return _decoded(ds, (0,))[0][0]

    return _guarded(work)


def beginning(head: bytes, stored: bytes) -> tuple[bytes, str, bytes]:
    """Of a compressed instance: its beginning, up to the pixel data, as Explicit VR Little Endian; the pixel data's VR;
    and its first frame decoded. `head` is its beginning as stored, `stored` that frame.
    """

    def work() -> tuple[bytes, str, bytes]:
        ds = pydicom.dcmread(io.BytesIO(head), force=True, stop_before_pixels=True)
        count = ds.get("NumberOfFrames")
        image.attach(ds, stored, image.pixel_vr(head))
        decoded, told = _decoded(ds, (0,))
        _describe(ds, told)
        del ds.PixelData
        ds.NumberOfFrames = count
        if count is None:
            del ds.NumberOfFrames
        return _written(ds), "OB" if told["bits_allocated"] <= 8 else "OW", decoded[0]

    return _guarded(work)


def value(part10: bytes, path: str) -> bytes:
    """The value of an element by its path (`00540016/1/00181072`), little endian."""

    def work() -> bytes:
        item = _read(part10)
        *steps, last = path.split("/")
        for tag, number in zip(steps[::2], steps[1::2], strict=True):
            items = item[int(tag, 16)].value if int(tag, 16) in item else None
            if not isinstance(items, pydicom.Sequence) or not 0 < int(number) <= len(items):
                raise Absent
            item = items[int(number) - 1]
        element = item.get_item(int(last, 16))
        found = element.value if element is not None else None
        if not isinstance(found, bytes):
            raise Absent
        return found

    return _guarded(work)


def rendered(part10: bytes, frame: bytes | None, number: int, look: Look) -> bytes:
    """As `image.render`."""
    return _guarded(lambda: image.render(part10, frame, number, look))


def _read(part10: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(part10), force=True)


def _decoded(ds: pydicom.Dataset, numbers: Sequence[int] | None) -> tuple[list[bytes], dict[str, Any]]:
    """(frames, Image Pixel attributes that describe them)."""
    uid = UID(ds.file_meta.TransferSyntaxUID)
    count = int(ds.get("NumberOfFrames") or 1) if numbers is None else len(numbers)
    size = int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel") or 1) * (int(ds.BitsAllocated) + 7) // 8
    if size * count > OUTPUT_MAX:
        raise TooLarge
    found: list[bytes] = []
    properties: dict[str, Any] = {}
    planar = int(ds.get("PlanarConfiguration") or 0)
    for frame, properties in get_decoder(uid).iter_buffer(ds, indices=numbers, validate=False):
        found.append(_arranged(bytes(frame), properties, planar))
    if len(found) != count:
        raise ValueError("frames")
    return found, {**properties, "planar_configuration": planar}


def _arranged(frame: bytes, told: Mapping[str, Any], planar: int) -> bytes:
    """A frame's samples as its header says that they lie (PS3.3 §C.7.6.3.1.3): clients have read that, and a decoder
    of RLE gives planes whatever it says.
    """
    samples = int(told["samples_per_pixel"])
    if samples == 1 or int(told.get("planar_configuration", planar)) == planar:
        return frame
    values = np.frombuffer(frame, f"u{int(told['bits_allocated']) // 8}")
    return values.reshape((-1, samples) if planar else (samples, -1)).T.tobytes()


def _native(part10: bytes) -> pydicom.Dataset:
    ds = _read(part10)
    decoded, told = _decoded(ds, None)
    content = b"".join(decoded)
    element = ds["PixelData"]
    element.value = content + b"\0" * (len(content) & 1)
    element.is_undefined_length = False
    element.VR = "OB" if told["bits_allocated"] <= 8 else "OW"
    _describe(ds, told)
    return ds


def _describe(ds: pydicom.Dataset, told: Mapping[str, Any]) -> None:
    """The Image Pixel attributes of decoded pixel data."""
    ds.BitsAllocated = told["bits_allocated"]
    # A decoder gives every pixel all its samples, also where the encoding had subsampled them (PS3.3 §C.7.6.3.1.2).
    photometric = told["photometric_interpretation"]
    ds.PhotometricInterpretation = "YBR_FULL" if photometric == SUBSAMPLED else photometric
    if told["samples_per_pixel"] > 1:
        ds.PlanarConfiguration = told["planar_configuration"]
    for table in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if table in ds:
            delattr(ds, table)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _written(ds: pydicom.Dataset) -> bytes:
    meta = ds.file_meta
    meta.setdefault("MediaStorageSOPClassUID", ds.get("SOPClassUID"))
    meta.setdefault("MediaStorageSOPInstanceUID", ds.get("SOPInstanceUID"))
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return out.getvalue()


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except (Absent, OutsideImage):
        raise
    except Exception as e:  # noqa: BLE001 - decoders raise anything; only its kind may leave
        raise Undecodable(type(e).__name__) from None
