"""From a stored frame to an image for people: PS3.4 §N.2's pipeline of grayscale, and colours. In a decoder's process.

Grayscale: modality LUT or rescale → VOI (what was asked for, else the LUT, else the first window, else the whole range)
→ 8 bits, MONOCHROME1 inverted. Palettes and YBR become RGB. What concerns one frame of an enhanced image stands in its
functional groups (PS3.3 §C.7.6.16).
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image, ImageOps
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.uid import UID

from consumers.api.look import GIF, JPEG, Function, Look, OutsideImage, Viewport, Window

PIXELS_MAX = 1 << 27
"""Samples of a frame that is rendered."""
PNG_LEVEL = 3
"""Of compression: more costs ten times the time for a tenth of the bytes."""

Array = npt.NDArray[np.float64]
Grey = npt.NDArray[np.uint8]


class TooManyPixels(ValueError):
    """It would not fit."""


def render(part10: bytes, frame: bytes | None, number: int, look: Look) -> bytes:
    """An encoded image of a frame. `part10` is a file; with `frame`, only its beginning, before the pixel data.

    `number` counts from 0. Raises whatever a damaged file makes pydicom raise.
    """
    ds = pydicom.dcmread(io.BytesIO(part10), force=True, stop_before_pixels=frame is not None)
    if int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel") or 1) > PIXELS_MAX:
        raise TooManyPixels
    if frame is not None:
        attach(ds, frame, pixel_vr(part10))
    pixels = _pixels(ds, number if frame is None else 0)
    image = Image.fromarray(_shown(ds, pixels, number, look.window))
    if look.viewport is not None:
        image = fitted(image, look.viewport)
    return encoded(image, look)


def _pixels(ds: Dataset, number: int) -> npt.NDArray[np.generic]:
    pixels, told = get_decoder(UID(ds.file_meta.TransferSyntaxUID)).as_array(ds, index=number, validate=False)
    ds.PhotometricInterpretation = told["photometric_interpretation"]
    return pixels


def pixel_vr(head: bytes) -> str:
    """The VR of Pixel Data, native, by a file's beginning up to their value: in big endian it tells what is swapped."""
    return "OB" if head[-8:-6] == b"OB" else "OW"


def attach(ds: Dataset, frame: bytes, vr: str) -> None:
    """Make of a header and a stored frame an instance of that frame alone. `vr`: that of native pixel data."""
    encapsulated = UID(ds.file_meta.TransferSyntaxUID).is_encapsulated
    ds.NumberOfFrames = 1
    ds.PixelData = encapsulate([frame], has_bot=False) if encapsulated else frame + bytes(len(frame) & 1)
    ds["PixelData"].VR = "OB" if encapsulated else vr
    ds["PixelData"].is_undefined_length = encapsulated
    for table in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if table in ds:
            delattr(ds, table)


def _shown(ds: Dataset, pixels: npt.NDArray[np.generic], number: int, window: Window | None) -> npt.NDArray[np.uint8]:
    """8 bits a sample, as they are to be seen."""
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, ds)
        return (colours >> 8 if colours.itemsize > 1 else colours).astype(np.uint8)
    if pixels.ndim == 3:
        excess = max(0, int(ds.BitsStored) - 8)
        return np.asarray(pixels.astype(np.int64) >> excess, np.uint8)
    grey = _windowed(ds, pixels, number, window)
    return 255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey


def _windowed(ds: Dataset, pixels: npt.NDArray[np.generic], number: int, window: Window | None) -> Grey:
    told = _of_frame(ds, number)
    values = apply_modality_lut(pixels, told)
    if window is None and told.get("VOILUTSequence"):
        bits = int(told.VOILUTSequence[0].LUTDescriptor[2])
        found: Array = apply_voi(values.astype(np.int64), told).astype(float)
        return (np.clip(found / ((1 << bits) - 1), 0, 1) * 255).round().astype(np.uint8)
    window = window or _own_window(told) or _whole_range(ds, pixels, values)
    return applied(values.astype(float), window)


def _of_frame(ds: Dataset, number: int) -> Dataset:
    """The modality and VOI attributes that hold for a frame: the dataset's, or those of its functional groups."""
    told = Dataset()
    groups = [
        *(ds.get("SharedFunctionalGroupsSequence") or ()),
        *(ds.get("PerFrameFunctionalGroupsSequence") or ())[number:][:1],
    ]
    sources = [ds]
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            sources += list(group.get(name) or ())
    for source in sources:
        for name in (
            "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth",
            "VOILUTFunction",
        ):  # fmt: skip
            if source.get(name) not in (None, ""):
                told[name] = source[name]
    told.PixelRepresentation = ds.get("PixelRepresentation", 0)
    told.BitsStored, told.BitsAllocated = ds.get("BitsStored", 16), ds.get("BitsAllocated", 16)
    return told


def _own_window(told: Dataset) -> Window | None:
    def first(name: str) -> float:
        value = told[name].value
        return float(value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value)

    if "WindowCenter" not in told or "WindowWidth" not in told:
        return None
    try:
        center, width = first("WindowCenter"), first("WindowWidth")
    except (TypeError, ValueError):  # no numbers: as if there were none
        return None
    try:
        function = Function(str(told.get("VOILUTFunction", "LINEAR")).lower().replace("_", "-"))
    except ValueError:  # a hint that nobody understands is no reason to show nothing
        function = Function.LINEAR
    return Window(center, max(width, 1) if function is Function.LINEAR else width, function)


def _whole_range(ds: Dataset, pixels: npt.NDArray[np.generic], values: npt.NDArray[np.generic]) -> Window:
    """From the least to the greatest value, padding left out (PS3.3 §C.7.5.1.1.2)."""
    padding = ds.get("PixelPaddingValue")
    seen = values[pixels != padding] if padding is not None else values
    if not seen.size:
        seen = values
    low, high = float(seen.min()), float(seen.max())
    return Window((low + high) / 2, max(high - low, 1e-9), Function.LINEAR_EXACT)


def applied(values: Array, window: Window) -> Grey:
    """PS3.3 §C.11.2.1.2.1 (linear), C.11.2.1.3.1 (sigmoid), C.11.2.1.3.2 (linear exact), to 0…255."""
    match window.function:
        case Function.SIGMOID:
            shown = 1 / (1 + np.exp(np.clip(-4 * (values - window.center) / window.width, -700, 700)))
        case Function.LINEAR_EXACT:
            shown = (values - window.center) / window.width + 0.5
        case Function.LINEAR if window.width > 1:
            shown = (values - (window.center - 0.5)) / (window.width - 1) + 0.5
        case _:
            shown = (values > window.center - 0.5).astype(float)
    return (np.clip(shown, 0, 1) * 255).round().astype(np.uint8)


def fitted(image: Image.Image, viewport: Viewport) -> Image.Image:
    """The region, mirrored if that is asked for, scaled into the viewport with its shape kept (PS3.18 §8.3.5.1.3)."""
    wide = viewport.region_width if viewport.region_width is not None else image.width - viewport.left
    high = viewport.region_height if viewport.region_height is not None else image.height - viewport.top
    left, top = max(0.0, viewport.left), max(0.0, viewport.top)
    right, bottom = min(image.width, viewport.left + abs(wide)), min(image.height, viewport.top + abs(high))
    if right <= left or bottom <= top:
        raise OutsideImage
    scale = min(viewport.width / (right - left), viewport.height / (bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    image = image.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom))
    if wide < 0:
        image = ImageOps.mirror(image)
    return ImageOps.flip(image) if high < 0 else image


def encoded(image: Image.Image, look: Look) -> bytes:
    """The file of an image."""
    out = io.BytesIO()
    if look.media_type == JPEG:
        image.save(out, "JPEG", quality=look.quality)
    elif look.media_type == GIF:
        image.save(out, "GIF")
    else:
        image.save(out, "PNG", compress_level=PNG_LEVEL)
    return out.getvalue()
