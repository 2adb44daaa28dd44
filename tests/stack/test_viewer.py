"""The viewer in a real browser: from the study list to an image whose pixels are those of the file."""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests import browser
from tests.archive import Archive, wait_until
from tests.unit.consumers.archive import part10

pytestmark = [
    pytest.mark.connected,
    pytest.mark.skipif(not browser.installed(), reason="no /usr/bin/chromium: make tools installs it"),
]

STUDY = "1.2.826.0.1.3680043.10.88.1"
NAME = "Viewed^Mona"
UNCLASSIFIED = "Unclassified^Noor"
"""Of a study whose one instance has no Modality: a list that holds one is drawn all the same."""
SLICES, SIZE = 4, 512
CENTER, WIDTH, INTERCEPT = 40, 400, -1024

Pixels = npt.NDArray[np.float64]


def hounsfield(number: int) -> Pixels:
    """A body with a lung, a bone and soft tissue in waves, another one in each slice, in a bright frame."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    hu = np.full((SIZE, SIZE), -1000.0)
    body = ((x - 256) / 200) ** 2 + ((y - 256) / 150) ** 2 < 1
    hu[body] = 40 + 120 * np.sin(x[body] / 40 + number)
    hu[((x - 180) / 40) ** 2 + ((y - 240) / 60) ** 2 < 1] = -800
    hu[((x - 256) / 25) ** 2 + ((y - 340) / 25) ** 2 < 1] = 700
    hu[:8] = hu[-8:] = hu[:, :8] = hu[:, -8:] = 1500
    return hu.round()


def windowed(hu: Pixels) -> Pixels:
    """PS3.3 §C.11.2.1.2.1, to 0…255."""
    return np.clip(((hu - (CENTER - 0.5)) / (WIDTH - 1) + 0.5) * 255, 0, 255)


def file(number: int) -> bytes:
    return part10(
        f"{STUDY}.1.{number}",
        study=STUDY,
        series=f"{STUDY}.1",
        rows=SIZE,
        columns=SIZE,
        pixels=(hounsfield(number) - INTERCEPT).astype("<u2").tobytes(),
        PatientName=NAME,
        PatientID=STUDY,
        InstanceNumber=number,
        RescaleIntercept=str(INTERCEPT),
        RescaleSlope="1",
        WindowCenter=str(CENTER),
        WindowWidth=str(WIDTH),
        PixelSpacing=["0.7", "0.7"],
        ImagePositionPatient=[0, 0, number * 2.5],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        FrameOfReferenceUID=f"{STUDY}.9",
    )


def fitted(values: Pixels, height: int, width: int) -> Pixels:
    """Scaled to fit a viewport, centred, by bilinear interpolation; outside of the image: -1."""
    scale = min(height / SIZE, width / SIZE)
    at = [(np.arange(n) + 0.5 - n / 2) / scale + SIZE / 2 - 0.5 for n in (height, width)]
    low = [np.clip(np.floor(a).astype(int), 0, SIZE - 2) for a in at]
    (fy, fx), (y, x) = [np.clip(a - b, 0, 1) for a, b in zip(at, low, strict=True)], low
    rows = values[y] * (1 - fy)[:, None] + values[y + 1] * fy[:, None]
    found: Pixels = rows[:, x] * (1 - fx) + rows[:, x + 1] * fx
    outside = [(a < -0.5) | (a > SIZE - 0.5) for a in at]
    found[outside[0]] = -1
    found[:, outside[1]] = -1
    return found


def unclassified() -> bytes:
    """On the first page of the list, whatever else the session's archive holds."""
    return part10(f"{STUDY}.2.1", study=f"{STUDY}.2", PatientName=UNCLASSIFIED, Modality="", StudyDate="20991231")


def row_of(name: str) -> str:
    """JavaScript: the row of the study list that shows this name."""
    return f"[...document.querySelectorAll('tr')].find(e => e.innerText.includes('{name.replace('^', ', ')}'))"


async def looked_at(url: str, folder: Path) -> tuple[bytes, int, tuple[int, int, int, int], browser.Page]:
    """Open the study from the list as a person does: (screenshot, instance number shown, its viewport, the tab)."""
    async with browser.browser(folder) as page:
        await page.go(url)
        await page.until(f"!!{row_of(UNCLASSIFIED)}")
        await page.go(f"{url}?patientName={NAME.partition('^')[0]}")  # the session's archive may hold pages of studies
        row = row_of(NAME)
        await page.until(f"!!{row}")
        x, y = await page.evaluate(f"(r => [r.x + 40, r.y + r.height / 2])({row}.getBoundingClientRect())")
        await page.click(x, y, times=2)
        await page.until("!!document.querySelector('canvas.cornerstone-canvas')")
        shown = await page.until(r"(document.body.innerText.match(/I:\s*(\d+) \(\d+\/\d+\)/) || [])[1]")
        tour = "[...document.querySelectorAll('button, a, span')].find(e => e.innerText === 'Skip all')"
        await page.until(f"!!{tour}", 40)
        await page.evaluate(f"{tour}.click()")
        await page.until(f"!{tour}")
        await page.until(
            # Two equal looks at the canvas in a row: all that was loading is there.
            "new Promise(done => { const look = () => document.querySelector('canvas.cornerstone-canvas').toDataURL();"
            " const first = look(); setTimeout(() => done(first === look()), 1500); })"
        )
        rectangle = await page.evaluate(
            "(r => [r.x, r.y, r.width, r.height].map(Math.round))"
            "(document.querySelector('canvas.cornerstone-canvas').getBoundingClientRect())"
        )
        assert await page.evaluate("crossOriginIsolated")
        return await page.screenshot(), int(shown), tuple(rectangle), page


@pytest.mark.client("OHIF in Chromium", feature="QIDO-RS and WADO-RS")
def test_the_image_seen_is_the_image_stored(archive: Archive, tmp_path: Path) -> None:
    assert archive.stow([unclassified(), *(file(n) for n in range(1, SLICES + 1))]).status_code == 200
    wait_until(lambda: archive.instance_count(STUDY) == SLICES, 60, "the study is searchable")
    wait_until(lambda: archive.instance_count(f"{STUDY}.2") == 1, 60, "the other one too")
    url = f"http://{archive.settings.http_host}:{archive.settings.viewer_port}/"
    front = httpx.get(url)
    assert front.status_code == 200, "the viewer is not installed: make stack"
    assert "script-src 'self'" in front.headers["content-security-policy"]

    shot, number, (left, top, width, height), page = asyncio.run(looked_at(url, tmp_path))
    (tmp_path / "viewer.png").write_bytes(shot)
    seen = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(float)[
        top : top + height, left : left + width
    ]
    expected = fitted(windowed(hounsfield(number)), height, width)
    # Away from the frame's rim and the viewer's marks, which lie outside of the image or in its corners.
    inside = np.s_[height // 10 : -height // 10, (width - height) // 2 + 20 : -((width - height) // 2 + 20)]
    assert np.ptp(seen[inside], axis=2).max() == 0, "grey is grey"
    difference = np.abs(seen[inside][..., 0] - expected[inside])
    assert np.median(difference) <= 1
    assert difference.mean() < 1.5, "but for half a pixel at edges, the file's pixels"
    others = [n for n in range(1, SLICES + 1) if n != number]
    for other in others:
        wrong = fitted(windowed(hounsfield(other)), height, width)[inside]
        assert np.abs(seen[inside][..., 0] - wrong).mean() > 5, "a look at another slice would be noticed"

    assert page.problems == []
    assert [r for r in page.requests if not re.match(f"{url}|data:|blob:", r)] == [], "nothing from elsewhere"
    frames = [r for r in page.requests if "/frames/1" in r]
    assert len(frames) == SLICES
    assert all(r.startswith(f"{url}dicom-web/") for r in frames)
    accesses = archive.json(f"/studies/{STUDY}/accesses")
    assert "retrieve-frames" in str(accesses), "what was looked at is on record"
