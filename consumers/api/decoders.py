"""Compressed pixel data decoded by pydicom's plug-ins, in processes of their own.

A decoder is C code that has seen the world's DICOM: a crash or a hang of it must cost one answer, not the door. Work
that waits is bounded; what is too large to decode in memory is not decoded.
"""

from __future__ import annotations

import asyncio
import io
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import Any, TypeVar

import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian

from consumers.api.wado import NotAcceptable
from infra.process import die_with_parent
from schemas.errors import Overloaded, Transient

WORKERS = 2
WAITING_MAX = 64
INPUT_MAX = 256 << 20
"""Bytes of a file that may be decoded."""
OUTPUT_MAX = 512 << 20
"""Bytes of its decoded pixels."""
TIMEOUT_S = 60.0
TASKS_PER_WORKER = 500
"""Then a worker is replaced: what a decoder leaks goes with it."""

T = TypeVar("T")


class _TooLarge(Exception):
    """Decoded, it would not fit."""


@lru_cache(maxsize=256)
def decodable(transfer_syntax: str) -> bool:
    """Whether a decoder for compressed pixel data is installed."""
    try:
        decoder = get_decoder(UID(transfer_syntax))
    except NotImplementedError:
        return False
    return bool(decoder.is_available)


class Decoders:
    """A pool of processes, begun with the first work."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0

    async def explicit(self, part10: bytes) -> bytes:
        """A Part 10 file with compressed pixel data as Explicit VR Little Endian.

        Raises NotAcceptable when it cannot be decoded, Overloaded when too many wait, Transient when a worker died.
        """
        return await self._run(_explicit, part10)

    async def frames(self, part10: bytes, numbers: Sequence[int]) -> list[bytes]:
        """Frames, from 0, of a Part 10 file, decoded. Raises as `explicit`."""
        return await self._run(_frames, part10, tuple(numbers))

    async def value(self, part10: bytes, path: str) -> bytes:
        """The value of an element by its path (`00540016/1/00181072`), little endian. Raises as `explicit`."""
        return await self._run(_value, part10, path)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    async def _run(self, work: Callable[..., T], part10: bytes, *args: Any) -> T:
        if len(part10) > INPUT_MAX:
            raise NotAcceptable("this instance is too large to be decoded: ask for transfer-syntax=*")
        if self._waiting >= WAITING_MAX:
            raise Overloaded("too many instances wait to be decoded", 2.0)
        self._waiting += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._executor(), work, part10, *args)
        except (BrokenProcessPool, TimeoutError) as e:
            self._kill()
            raise Transient("a decoder ended before its work did") from e
        except _Undecodable as e:
            raise NotAcceptable(f"the stored pixel data cannot be decoded ({e}): ask for transfer-syntax=*") from e
        finally:
            self._waiting -= 1

    def _executor(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                max_tasks_per_child=TASKS_PER_WORKER,
            )
        return self._pool

    def _kill(self) -> None:
        """A worker that hangs does not end by itself."""
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


# ------------------------------------------------------------------------------------------------ in the worker


class _Undecodable(Exception):
    """The type of what went wrong, never its text: that quotes values."""


def _begin() -> None:
    die_with_parent()
    # pydicom says what it finds in a dataset, values included.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def _read(part10: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(part10), force=True)


def _decoded(ds: pydicom.Dataset, numbers: Sequence[int] | None) -> tuple[list[bytes], dict[str, Any]]:
    """(frames, Image Pixel attributes that describe them)."""
    uid = UID(ds.file_meta.TransferSyntaxUID)
    count = int(ds.get("NumberOfFrames") or 1) if numbers is None else len(numbers)
    size = int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel") or 1) * (int(ds.BitsAllocated) + 7) // 8
    if size * count > OUTPUT_MAX:
        raise _TooLarge
    frames: list[bytes] = []
    properties: dict[str, Any] = {}
    for frame, properties in get_decoder(uid).iter_buffer(ds, indices=numbers, validate=False):  # noqa: B007
        frames.append(bytes(frame))
    if len(frames) != count:
        raise ValueError("frames")
    return frames, properties


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as e:  # noqa: BLE001 - decoders raise anything; only its kind may leave
        raise _Undecodable(type(e).__name__) from None


def _explicit(part10: bytes) -> bytes:
    def work() -> bytes:
        ds = _read(part10)
        frames, found = _decoded(ds, None)
        value = b"".join(frames)
        element = ds["PixelData"]
        element.value = value + b"\0" * (len(value) & 1)
        element.is_undefined_length = False
        ds.BitsAllocated = found["bits_allocated"]
        element.VR = "OB" if ds.BitsAllocated <= 8 else "OW"
        ds.PhotometricInterpretation = found["photometric_interpretation"]
        if found["samples_per_pixel"] > 1:
            ds.PlanarConfiguration = found["planar_configuration"]
        for table in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            if table in ds:
                delattr(ds, table)
        meta = ds.file_meta
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.setdefault("MediaStorageSOPClassUID", ds.get("SOPClassUID"))
        meta.setdefault("MediaStorageSOPInstanceUID", ds.get("SOPInstanceUID"))
        out = io.BytesIO()
        pydicom.dcmwrite(out, ds, implicit_vr=False, little_endian=True, enforce_file_format=True)
        return out.getvalue()

    return _guarded(work)


def _frames(part10: bytes, numbers: Sequence[int]) -> list[bytes]:
    return _guarded(lambda: _decoded(_read(part10), numbers)[0])


def _value(part10: bytes, path: str) -> bytes:
    def work() -> bytes:
        item = _read(part10)
        *steps, last = path.split("/")
        for tag, number in zip(steps[::2], steps[1::2], strict=True):
            item = item[int(tag, 16)].value[int(number) - 1]
        element = item.get_item(int(last, 16))
        value = element.value if element is not None else None
        if not isinstance(value, bytes):
            raise TypeError("no bytes")
        return value

    return _guarded(work)
