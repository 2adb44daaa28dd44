"""The pages in a real browser: a doctor is refused and breaks the glass; the officer and the patient see it.

What a program can see of WCAG 2.2 AA is looked at on every page in both languages.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import axe, browser
from tests.archive import Archive, wait_until
from tests.local_stack import LocalStack
from tests.unit.consumers.archive import part10

pytestmark = [
    pytest.mark.connected,
    pytest.mark.skipif(not browser.installed(), reason="no /usr/bin/chromium: make tools installs it"),
]

STUDY = "1.2.826.0.1.3680043.10.88.5"
SCRIPT = "<script>glass()</script>"
NAME = f"Glass^{SCRIPT}=منى {SCRIPT}"
IMAGE = "<img src=x onerror=glass()>"
STATED = "فاقد الوعي بعد حادث، ونحتاج الأشعة السابقة"
PATIENT = "glass-patient"
PAGES = (
    "/",
    "/web/studies",
    "/web/arrivals",
    "/web/conflicts",
    "/web/proposals",
    "/web/rejected",
    "/web/corrections",
    "/web/peers",
    "/web/peers/one",
    f"/web/studies/{STUDY}",
    f"/web/studies/{STUDY}/accesses",
    f"/web/studies/{STUDY}/correct",
)


SIDE = 64
SLOPE, INTERCEPT, CENTER, WIDTH = 2, -1024, 140, 600
SEEN = f"""(side => {{
  const canvas = document.querySelector("#stage canvas");
  if (!canvas || document.getElementById("image").dataset.state !== "live") return null;
  const {{data}} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height), found = [];
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {{
    const at = n => Math.floor((n + 0.5) * canvas.width / side);
    found.push(data[4 * (at(y) * canvas.width + at(x))]);
  }}
  return found;
}})({SIDE})"""
"""What is on the canvas in the middle of each of the image's pixels."""


def pixels(number: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Of the study's images: a slope that falls out of the window at both ends, another way in each."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    return np.asarray((8 * rows + 4 * columns) if number == 1 else (700 - 6 * rows + 2 * columns), dtype="<u2")


def windowed(number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Grey values of 0 to 255 as PS3.3 C.11.2.1.2.1 has them."""
    units = pixels(number).astype(float) * SLOPE + INTERCEPT
    found: np.ndarray[Any, np.dtype[np.float64]] = ((units - (CENTER - 0.5)) / (WIDTH - 1) + 0.5).clip(0, 1) * 255
    return found


def passwords(home: Path) -> dict[str, str]:
    """Of the embedded issuer's users."""
    lines = (home / "secrets" / "users.txt").read_text(encoding="utf-8").splitlines()
    return {name: password for name, password, *_ in (line.split("\t") for line in lines if line[:1] != "#")}


def image(number: int) -> bytes:
    """A file of the study."""
    return part10(
        f"{STUDY}.1.{number}",
        study=STUDY,
        series=f"{STUDY}.1",
        rows=SIDE,
        columns=SIDE,
        pixels=pixels(number).tobytes(),
        InstanceNumber=number,
        PatientName=NAME,
        StudyDescription=IMAGE,
        RescaleSlope=SLOPE,
        RescaleIntercept=INTERCEPT,
        WindowCenter=CENTER,
        WindowWidth=WIDTH,
    )


class Person:
    """Somebody at the browser."""

    def __init__(self, page: browser.Page, base: str, script: str, known: dict[str, str]) -> None:
        self.page, self.base, self.script, self.known = page, base, script, known
        self.faults: list[str] = []

    async def look(self) -> str:
        """What the page shows; what axe has to say of it is kept."""
        path: str = await self.page.evaluate("location.pathname + document.documentElement.lang")
        self.faults += [f"{path} {fault}" for fault in await axe.faults(self.page, self.script)]
        assert await self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
        text: str = await self.page.evaluate("document.body.innerText")
        return text

    async def open(self, path: str) -> str:
        """An address, looked at."""
        await self.page.open(self.base + path)
        return await self.look()

    async def log_in(self, name: str, path: str) -> None:
        """By the form, on the way to an address; who was there before is logged out."""
        if await self.page.evaluate("!!document.querySelector('form[action=\"/logout\"]')"):
            await self.page.press("form[action='/logout'] button")
            await self.page.until("!document.querySelector('form[action=\"/logout\"]')")
        await self.page.open(f"{self.base}/login?back={path}")
        await self.page.until("!!document.querySelector('#f-password')")
        await self.look()
        await self.page.fill("#f-username", name)
        await self.page.fill("#f-password", self.known[name])
        await self.page.key("Enter", 13)
        await self.page.until("!/^.(login|oidc)/.test(location.pathname)")
        await self.page.loaded()

    async def until_shown(self, path: str, words: str, within: int = 20) -> str:
        """Load an address again until it shows something."""
        for _ in range(within * 2):
            await self.page.open(self.base + path)
            if await self.page.evaluate(f"document.body.innerText.includes({words!r})"):
                return await self.look()
            await asyncio.sleep(0.5)
        raise AssertionError(f"{path} never showed {words}: {await self.page.evaluate('document.body.innerText')}")


async def on_canvas(page: browser.Page, number: int) -> None:
    """The viewer shows an image of the study with the window that its file names."""
    wanted = windowed(number)
    assert wanted.min() == 0, "the window cuts both ends"
    assert wanted.max() == 255, "the window cuts both ends"
    apart = np.full_like(wanted, 255.0)
    for _ in range(150):
        if found := await page.evaluate(SEEN):
            apart = np.abs(np.array(found, float).reshape(SIDE, SIDE) - wanted)
            if apart.max() <= 6 and apart.mean() < 1.5:  # between the canvas' pixels lie 3 grey values
                return
        await asyncio.sleep(0.2)
    raise AssertionError(f"image {number}: apart by {apart.max():.1f}, {apart.mean():.2f} in the mean; {page.problems}")


async def seen(person: Person) -> None:
    """All that people see, in one browser."""
    page = person.page
    # A doctor without a relation is refused, and told what to do in an emergency
    await page.size(1280)
    await person.log_in("doctor", f"/web/studies/{STUDY}?lang=en")
    refused = await person.look()
    assert "You may not open this" in refused
    assert "Glass" not in refused
    await person.open(f"/web/studies/{STUDY}?lang=ar")
    await page.fill("#f-words", STATED)
    await page.press("form[action='/web/emergency'] button")
    await page.until("location.search.includes('notice=opened')")
    await page.loaded()
    opened = await person.look()
    assert f"منى {SCRIPT}" in opened, "the name is text"
    assert IMAGE in opened
    assert await page.evaluate("document.title") == "الدراسة · سجل"
    # The officer sees both, with the words that were stated
    await person.log_in("officer", "/web/accesses")
    shown = await person.until_shown("/web/accesses?lang=ar", STATED)
    assert STUDY in shown
    assert STUDY in await person.open("/web/accesses?list=denied&lang=en")
    # The patient sees who it was, in plain words
    await person.log_in(PATIENT, "/web/own")
    await person.until_shown("/web/own/accesses?lang=en", "opened the file in an emergency")
    await person.until_shown("/web/own/accesses?lang=ar", "طوارئ")
    await page.size(360)
    for own in ("/web/own", f"/web/own/studies/{STUDY}", "/web/own/accesses"):
        await person.open(f"{own}?lang=ar")
    # Their images: the server's drawing, then the viewer with the stored pixels; a finger turns to the next
    await page.open(f"{person.base}/web/own/studies/{STUDY}/images?lang=ar")
    await on_canvas(page, 1)
    await page.swipe("#stage", 120)  # from right to left is back in Arabic
    await on_canvas(page, 2)
    assert "٢" in await person.look()
    await page.size(1280)
    # Every page of who looks after the archive, at a desk in one language and on a phone in the other
    await person.log_in("administrator", "/")
    for width, language in ((1280, "ar"), (360, "en")):
        await page.size(width)
        for path in PAGES:
            await person.open(f"{path}?lang={language}")
    await page.key("Tab", 9)
    assert await page.evaluate("document.activeElement.className") == "skip", "the keyboard's first stop"
    await page.key("Enter", 13)
    assert await page.evaluate("location.hash") == "#main"


def test_a_glass_broken_is_seen_by_the_officer_and_the_patient(
    archive: Archive, whole: LocalStack, tmp_path: Path
) -> None:
    files = [image(1), image(2)]
    assert archive.stow(files).status_code == 200
    wait_until(lambda: archive.instance_count(STUDY) == 2, 60, "the study is searchable")
    key = archive.json(f"/studies/{STUDY}")["patient_key"]
    assert whole.sijil("users", "put", PATIENT, "patient", "--patient", key).returncode == 0
    script, known = axe.source(), passwords(whole.home)

    async def run() -> Person:
        async with browser.browser(tmp_path) as page:
            person = Person(page, archive.base, script, known)
            await seen(person)
            return person

    person = asyncio.run(run())
    assert person.faults == []
    # A refusal's status is an entry of the browser's log; a violation of the policy or a script's error would be too
    assert [p for p in person.page.problems if "status of 403" not in p] == []
    own = (archive.base, "data:image/svg+xml")  # the browser's own icons of form fields
    assert [r for r in person.page.requests if not r.startswith(own)] == []
