"""Rendered images and thumbnails against what numpy makes of the same file."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array

from consumers.api.decoders import Decoders
from consumers.api.wado import NotAcceptable
from tests.unit.consumers.archive import FILES, MORE_FILES, MemoryArchive, part10, sample
from tests.unit.consumers.bad_decoders import dies, sleeps
from tests.unit.consumers.multipart import parts_of

BASE = "/dicom-web/studies/1.2.3"
ONE = f"{BASE}/series/1.2.3.1/instances/1.2.3.1.1"

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom warns of what its own files hold

Pixels = npt.NDArray[np.float64]


def stored(data: bytes) -> tuple[MemoryArchive, str]:
    """An archive with one file, and the file's address."""
    archive = MemoryArchive()
    archive.store([data])
    ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    return archive, path


def png(archive: MemoryArchive, path: str) -> npt.NDArray[np.uint8]:
    answer = archive.get(path, accept="image/png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text[:300]
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def windowed(values: npt.NDArray[Any], center: float, width: float) -> Pixels:
    """PS3.3 §C.11.2.1.2.1 as its pseudo-code has it."""
    x = values.astype(float)
    inside = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.where(
        x <= center - 0.5 - (width - 1) / 2, 0, np.where(x > center - 0.5 + (width - 1) / 2, 255, inside)
    ).round()


def ct(**values: Any) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 4096, (2, 24, 16), dtype="<u2")
    given = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": ["40", "1"], "WindowWidth": ["400", "2"]}
    return part10("1.2.3.1.1", rows=24, columns=16, frames=2, pixels=pixels.tobytes(), **(given | values))


def values_of(data: bytes, frame: int = 0) -> npt.NDArray[Any]:
    ds = pydicom.dcmread(io.BytesIO(data))
    found: Pixels = ds.pixel_array[frame] * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    return found


def test_the_first_window_of_the_file() -> None:
    archive, path = stored(ct())
    assert np.array_equal(png(archive, f"{path}/rendered"), windowed(values_of(ct()), 40, 400))
    assert np.array_equal(png(archive, f"{path}/frames/2/rendered"), windowed(values_of(ct(), 1), 40, 400))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("1000,3000", lambda x: windowed(x, 1000, 3000)),
        ("1000,3000,linear", lambda x: windowed(x, 1000, 3000)),
        ("1000,3000,linear-exact", lambda x: (np.clip((x - 1000) / 3000 + 0.5, 0, 1) * 255).round()),
        ("1000,3000,sigmoid", lambda x: (255 / (1 + np.exp(-4 * (x - 1000) / 3000))).round()),
        ("1000,1,linear", lambda x: np.where(x > 999.5, 255, 0)),
    ],
)
def test_a_window_that_is_asked_for(asked: str, expected: Any) -> None:
    archive, path = stored(ct())
    assert np.array_equal(png(archive, f"{path}/rendered?window={asked}"), expected(values_of(ct())))


def test_monochrome1_is_inverted() -> None:
    archive, path = stored(ct(PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(png(archive, f"{path}/rendered"), 255 - windowed(values_of(ct()), 40, 400))


def test_without_a_window_the_whole_range_but_padding() -> None:
    data = ct(WindowCenter=None, WindowWidth=None, PixelPaddingValue=4000)
    pixels = pydicom.dcmread(io.BytesIO(data)).pixel_array[0]
    archive, path = stored(data)
    shown = png(archive, f"{path}/rendered").astype(int)
    seen = pixels[pixels != 4000]
    assert shown[pixels == seen.min()].max() == 0
    assert shown[pixels == seen.max()].min() == 255


def test_a_voi_lut() -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 8], [n % 256 for n in range(4096)]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    data = ct(VOILUTSequence=[lut], RescaleSlope=None, RescaleIntercept=None)
    archive, path = stored(data)
    pixels = pydicom.dcmread(io.BytesIO(data)).pixel_array[0]
    assert np.array_equal(png(archive, f"{path}/rendered"), pixels % 256)


def test_functional_groups_of_the_frame() -> None:
    def group(center: int) -> Dataset:
        voi, values, item = Dataset(), Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = str(center), "500"
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "1", "-1024", "HU"
        item.FrameVOILUTSequence, item.PixelValueTransformationSequence = [voi], [values]
        return item

    none = dict.fromkeys(("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"))
    data = ct(PerFrameFunctionalGroupsSequence=[group(100), group(900)], **none)
    archive, path = stored(data)
    pixels = pydicom.dcmread(io.BytesIO(data)).pixel_array
    for frame, center in ((0, 100), (1, 900)):
        expected = windowed(pixels[frame].astype(int) - 1024, center, 500)
        assert np.array_equal(png(archive, f"{path}/frames/{frame + 1}/rendered"), expected)


@pytest.mark.parametrize(
    "name",
    ["SC_rgb.dcm", "SC_rgb_rle.dcm", "color-pl.dcm", "color-px.dcm", "SC_ybr_full_422_uncompressed.dcm",
     "examples_palette.dcm", "color3d_jpeg_baseline.dcm", "US1_UNCR.dcm", "US1_J2KR.dcm"],
)  # fmt: skip
def test_colours(name: str) -> None:
    data = sample(name)
    ds = pydicom.dcmread(io.BytesIO(data))
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        expected = apply_color_lut(ds.pixel_array, ds) >> 8
    else:
        expected = pixel_array(io.BytesIO(data), index=0)
    archive, path = stored(data)
    assert np.array_equal(png(archive, f"{path}/rendered"), expected)


COMPRESSED = (
    "JPEG2000.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm", "JPEG-LL.dcm",
    "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "image_dfl.dcm",
)  # fmt: skip


@pytest.mark.parametrize("name", COMPRESSED)
def test_every_decoder(name: str) -> None:
    data = sample(name)
    ds = pydicom.dcmread(io.BytesIO(data))
    archive, path = stored(data)
    shown = apply_modality_lut(ds.pixel_array, ds)
    expected = windowed(shown, 500, 1000)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        expected = 255 - expected
    assert np.array_equal(png(archive, f"{path}/rendered?window=500,1000"), expected)


def test_bits_that_begin_within_a_byte() -> None:
    data = sample("liver.dcm")
    ds = pydicom.dcmread(io.BytesIO(data))
    archive, path = stored(data)
    for frame in (1, 2, 3):
        seen = png(archive, f"{path}/frames/{frame}/rendered")
        assert np.array_equal(seen > 127, ds.pixel_array[frame - 1] > 0), frame


def test_jpeg_is_the_default_and_near() -> None:
    y, x = np.mgrid[:64, :64]
    data = part10("1.2.3.1.1", rows=64, columns=64, pixels=((x + y) * 8).astype("<u2").tobytes())
    archive, path = stored(data)
    for answer in (
        archive.get(f"{path}/rendered"),
        archive.get(f"{path}/rendered?accept=image/jpeg", accept="text/html"),
    ):
        assert answer.headers["content-type"] == "image/jpeg"
        seen = np.asarray(Image.open(io.BytesIO(answer.content))).astype(float)
        assert np.abs(seen - (x + y) * 8 / 1008 * 255).max() < 8
    small, large = (len(archive.get(f"{path}/rendered?quality={q}").content) for q in (10, 100))
    assert small < large


@pytest.mark.parametrize(
    ("viewport", "size"),
    [
        ("8,100", (8, 12)),
        ("100,12", (8, 12)),
        ("160,240", (160, 240)),
        ("10,10,2,2,4,8", (5, 10)),
        ("32,32,,,16,16", (32, 32)),
    ],
)
def test_viewports(viewport: str, size: tuple[int, int]) -> None:
    archive, path = stored(ct())
    assert png(archive, f"{path}/rendered?viewport={viewport}").shape[::-1] == size


def test_a_region_and_its_mirror_image() -> None:
    archive, path = stored(ct())
    whole = png(archive, f"{path}/rendered")
    assert np.array_equal(png(archive, f"{path}/rendered?viewport=8,10,4,6,8,10"), whole[6:16, 4:12])
    assert np.array_equal(png(archive, f"{path}/rendered?viewport=8,10,4,6,-8,-10"), whole[6:16, 4:12][::-1, ::-1])


def test_thumbnails_of_every_level() -> None:
    archive = MemoryArchive()
    archive.store([part10(f"1.2.3.1.{n}", rows=256, columns=512, pixels=bytes([n]) * 262144) for n in (1, 2, 3)])
    for path in (BASE, f"{BASE}/series/1.2.3.1", ONE, f"{ONE}/frames/1"):
        answer = archive.get(f"{path}/thumbnail")
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (128, 64)
        assert Image.open(io.BytesIO(archive.get(f"{path}/thumbnail?viewport=20,20").content)).size == (20, 10)


def test_all_frames_as_parts() -> None:
    archive, path = stored(ct())
    answer = archive.get(f"{path}/rendered", accept='multipart/related; type="image/png"')
    images = [np.asarray(Image.open(io.BytesIO(p.body))) for p in parts_of(answer)]
    assert [np.array_equal(i, windowed(values_of(ct(), n), 40, 400)) for n, i in enumerate(images)] == [True, True]
    again = archive.get(f"{path}/rendered", accept='multipart/related; type="image/png"')
    assert again.content == answer.content, "a strong tag"


def test_all_images_of_a_study_and_of_a_series() -> None:
    archive = MemoryArchive()
    archive.store(
        [part10(f"1.2.3.1.{n}", pixels=bytes([n, 0]) * 16, WindowCenter="2", WindowWidth="4") for n in (1, 2)]
    )
    for path in (BASE, f"{BASE}/series/1.2.3.1"):
        answer = archive.get(f"{path}/rendered", accept='multipart/related; type="image/png"')
        images = [np.asarray(Image.open(io.BytesIO(p.body))) for p in parts_of(answer)]
        assert [i[0, 0] for i in images] == [windowed(np.array([n]), 2, 4)[0] for n in (1, 2)]
        same = archive.get(
            f"{path}/rendered",
            accept='multipart/related; type="image/png"',
            **{"If-None-Match": answer.headers["etag"]},
        )
        assert same.status_code == 304
        assert archive.get(f"{path}/rendered", accept="image/png").status_code == 406


@pytest.mark.parametrize(
    "query",
    ["window=1", "window=a,b", "window=1,0", "window=1,2,cubic", "window=nan,2", "viewport=0,1", "viewport=1",
     "viewport=9000,1", "viewport=1,2,3", "viewport=1,1,0,0,0,1", "quality=0", "quality=101", "quality=x"],
)  # fmt: skip
def test_what_cannot_be_read(query: str) -> None:
    archive, path = stored(ct())
    assert archive.get(f"{path}/rendered?{query}").status_code == 400


def test_what_is_optional_is_named() -> None:
    archive, path = stored(ct())
    answer = archive.get(f"{path}/rendered?annotation=patient")
    assert answer.status_code == 200
    assert "annotation" in answer.headers["warning"]


@pytest.mark.parametrize("name", ["reportsi.dcm", "test-SR.dcm"])
def test_no_image_no_picture(name: str) -> None:
    archive, path = stored(sample(name))
    for end in ("rendered", "thumbnail"):
        assert archive.get(f"{path}/{end}").status_code == 406


def test_no_such_frame_no_such_form() -> None:
    archive, path = stored(ct())
    assert archive.get(f"{path}/frames/3/rendered").status_code == 404
    assert archive.get(f"{path}/rendered", accept="image/webp").status_code == 406
    assert archive.get(f"{path}/rendered", accept="video/mp4").status_code == 406


def test_of_a_large_instance_only_the_frame_is_read() -> None:
    data = part10("1.2.3.1.1", rows=256, columns=256, frames=40, pixels=bytes(256 * 256 * 2 * 40))
    archive, path = stored(data)
    read: list[int] = []
    stream = archive.objects.stream

    def counted(bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> Any:
        read.append(length)
        return stream(bucket, key, offset, length, version_id=version_id)

    archive.objects.stream = counted  # type: ignore[method-assign]
    assert archive.get(f"{path}/frames/20/rendered").status_code == 200
    assert sum(read) < 2 * 256 * 256 * 2


def test_the_client_keeps_it() -> None:
    archive, path = stored(ct())
    first = archive.get(f"{path}/rendered?window=1,2")
    again = archive.get(f"{path}/rendered?window=1,2", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = archive.get(f"{path}/rendered?window=1,3", **{"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200


@pytest.mark.slow
def test_every_image_that_pydicom_ships_is_shown_or_refused() -> None:
    """None of them costs more than its own answer."""
    refused: list[str] = []

    async def show(client: httpx.AsyncClient, name: str, path: str) -> None:
        answer = await client.get(f"{path}/rendered?viewport=64,64")
        if answer.status_code != 200:
            assert answer.status_code == 406, (name, answer.text)
            refused.append(name)

    async def run() -> None:
        for file in sorted([*FILES.glob("*.dcm"), *MORE_FILES.glob("*.dcm")]):
            try:
                archive, path = await asyncio.to_thread(stored, file.read_bytes())
                ds = pydicom.dcmread(file, stop_before_pixels=True)
            except Exception:  # noqa: BLE001, S112 (files that the doors refuse are not rendered)
                continue
            if "Rows" not in ds or file.stat().st_size > 600_000:
                continue
            async with archive.client() as client:
                await show(client, file.name, path)

    asyncio.run(run())
    assert len(refused) < 12, refused


# ------------------------------------------------------------------------------------------------ processes


def test_a_file_that_ends_its_decoder_is_refused_alone() -> None:
    async def run() -> Sequence[object]:
        decoders = Decoders(2)
        try:
            good = [decoders._run(sleeps, b"good", 0.5) for _ in range(4)]
            bad = [decoders._run(dies, b"bad")]
            return await asyncio.gather(*good[:2], *bad, *good[2:], return_exceptions=True)
        finally:
            decoders.close()

    found = asyncio.run(run())
    assert [f for n, f in enumerate(found) if n != 2] == [b"good"] * 4
    assert isinstance(found[2], NotAcceptable)


def test_a_file_that_hangs_its_decoder_is_given_up() -> None:
    async def run() -> Sequence[object]:
        decoders = Decoders(1, timeout_s=8.0)
        try:
            hanging = asyncio.create_task(decoders._run(sleeps, b"bad", 600.0))
            return await asyncio.gather(hanging, decoders._run(sleeps, b"good", 0.0), return_exceptions=True)
        finally:
            decoders.close()

    hung, good = asyncio.run(run())
    assert type(hung).__name__ == "Transient"
    assert good == b"good"
