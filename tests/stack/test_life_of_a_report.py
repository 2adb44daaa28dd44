"""From the clerk's desk to the doctor and the patient, each at a browser: ordered, done, reported in Arabic, read."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pypdfium2
import pytest

from infra.clock import uuid7
from schemas.identity import derived_id, national_id_check_digit
from tests import axe, browser
from tests.archive import Archive, wait_until
from tests.local_stack import LocalStack
from tests.stack.examination import Device
from tests.stack.test_pages import Person, passwords
from tests.unit.producers.test_people import FHIR, practitioner, role

pytestmark = [
    pytest.mark.connected,
    pytest.mark.skipif(not browser.installed(), reason="no /usr/bin/chromium: make tools installs it"),
]

FIRST13 = "2900101010127"  # 1990-01-01, Cairo, a man
NATIONAL_ID = FIRST13 + national_id_check_digit(FIRST13)
NAME = "Karim Salem=كريم سالم"
QUESTION = "سعال منذ شهر مع نقص في الوزن"
FINDINGS = "لا توجد عقيدات بالرئتين. حجم القلب طبيعي، وقياس الأبهر 32 mm."
IMPRESSION = "أشعة مقطعية طبيعية على الصدر."
TITLE = "أشعة مقطعية على الصدر"
STEP = f"2.25.{uuid7().int}"


def register(archive: Archive, doctor: str) -> None:
    """The treating doctor is on the staff of the site, so that the clerk finds her."""
    names = [{"text": "د. هدى فهمي"}, {"text": "Dr Hoda Fahmy"}]
    for method, path, body in (
        ("PUT", f"/fhir/Practitioner/{doctor}", practitioner("D-1990", name=names)),
        ("POST", "/fhir/PractitionerRole", role(doctor, "doctor", sites=(archive.settings.site,))),
    ):
        answer = httpx.request(method, archive.base + path, json=body, headers=FHIR, timeout=30)
        assert answer.status_code in (200, 201), answer.text
    wait_until(lambda: archive.json("/referrers?name=Hoda")["referrers"], 30, "the doctor is found by name")


async def place(desk: Person, doctor: str, folder: Path) -> dict[str, str]:
    """The clerk scans the card, chooses examination and doctor, prints the slip: order, PIN and the patient's link."""
    page = desk.page
    await page.open(desk.base)
    await desk.log_in("clerk", "/web/orders/new?lang=ar")
    await desk.look()
    await page.fill("#f-national_id", NATIONAL_ID)
    said = "[...document.querySelectorAll('#f-birth_date, #f-sex')].map(e => e.value).join()"
    await page.until(f"{said} === '1990-01-01,M'")
    typed = {"name": "كريم سالم", "name_latin": "Karim Salem", "phone": "٠١٠٠ ١٢٣ ٤٥٦٧", "reason": QUESTION}
    for field, text in {**typed, "referrer_name": "هدى"}.items():
        await page.fill(f"#f-{field}", text)
    await page.until("!!document.querySelector('#f-requester')")
    for field, value in (("requester", doctor), ("exam", "CT-CHEST"), ("priority", "urgent")):
        chosen = (
            f"(e => {{ e.value = {value!r}; return e.selectedOptions[0]?.text }})(document.querySelector('#f-{field}'))"
        )
        assert await page.evaluate(chosen), f"{value} is offered as {field}"
    order: str = await page.evaluate("document.querySelector('[name=order_id]').value")
    (folder / "clerk.png").write_bytes(await page.screenshot())
    await page.press("form.order .last button")
    while True:
        await page.until("!!document.querySelector('.slip')")
        await page.loaded()
        slip = await desk.look()
        (folder / "slip.png").write_bytes(await page.screenshot())
        link = await page.evaluate("document.querySelector('.slip p.code')?.innerText ?? ''")
        if link:
            break
        # The read models were late: without them there is no link yet, and a new slip has one
        await desk.open(f"/web/orders/{order}?lang=ar")
        await page.press(f"form[action='/web/orders/{order}/slip'] button")
    assert "كريم" in slip
    accession, pin = await page.evaluate("[...document.querySelectorAll('.slip .big')].map(e => e.innerText)")
    return {"id": order, "accession": accession, "pin": pin, "link": link}


@pytest.fixture(scope="module")
def told(whole: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The order as the clerk placed it: id, accession number, study UID, PIN and link of its slip."""
    archive, folder = Archive(whole.settings("operator")), tmp_path_factory.mktemp("clerk")
    doctor = derived_id("person", "embedded", "doctor")
    register(archive, doctor)

    async def run() -> dict[str, str]:
        async with browser.browser(folder) as page:
            desk = Person(page, archive.base, axe.source(), passwords(whole.home))
            placed = await place(desk, doctor, folder)
            assert desk.faults == []
            return placed

    placed = asyncio.run(run())
    shown = wait_until(lambda: archive.json(f"/orders/{placed['id']}"), 30, "the order is there")
    assert (shown["accession"], shown["requester"]) == (placed["accession"], doctor)
    assert (shown["referrer_name"], shown["phone"]) == ("د. هدى فهمي", "01001234567")
    return {**placed, "study_uid": shown["study_uid"]}


def test_a_device_does_what_its_worklist_says(archive: Archive, told: dict[str, str], tmp_path: Path) -> None:
    device = Device(archive, tmp_path)
    (item,) = wait_until(lambda: device.worklist(told["accession"]), 30, "the order is on the worklist")
    assert str(item.PatientName) == NAME
    assert (item.PatientID, item.PatientBirthDate, item.PatientSex) == (NATIONAL_ID, "19900101", "M")
    assert (item.StudyInstanceUID, item.ReasonForTheRequestedProcedure) == (told["study_uid"], QUESTION)
    step = item.ScheduledProcedureStepSequence[0]
    assert (step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepStatus) == (
        ("CT", "CT1", "SCHEDULED")
    )
    device.begin(item, STEP)
    wait_until(lambda: _status(device, told) == "STARTED", 30, "the worklist says that it has begun")
    files = device.images(item, 6)
    sent = device.archive.storescu(files, "-xe", "-aet", device.ae_title)
    assert sent.returncode == 0, sent.stderr
    uid = told["study_uid"]
    wait_until(lambda: archive.instance_count(uid) == 6, 60, "the study is searchable")
    device.end(uid, [f"{uid}.1.{n}" for n in range(1, 7)], STEP)
    found = wait_until(lambda: archive.json(f"/studies/{uid}").get("completed"), 30, "the study is complete")
    assert (found["basis"], found["instances"]) == ("mpps", 6), "by what the device listed"
    assert device.worklist(told["accession"]) == [], "what is done leaves the list"


def _status(device: Device, told: dict[str, str]) -> str:
    (item,) = device.worklist(told["accession"])
    return str(item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus)


Cookies = list[dict[str, Any]]


class Desk(Person):
    """Several people at one browser: each has a jar of cookies."""

    jars: dict[str, Cookies]

    async def keep(self, name: str) -> None:
        """Whoever is logged in steps aside."""
        found = await self.page.call("Network.getCookies", urls=[self.base])
        self.jars = {**getattr(self, "jars", {}), name: found["cookies"]}
        await self.page.call("Network.clearBrowserCookies")

    async def back(self, name: str) -> None:
        """They sit down again."""
        await self.page.call("Network.clearBrowserCookies")
        for cookie in self.jars[name]:
            await self.page.call(
                "Network.setCookie", url=self.base, **{k: cookie[k] for k in ("name", "value", "path", "httpOnly")}
            )

    def asks(self, name: str) -> httpx.Client:
        """The same somebody, without a browser."""
        cookies = {c["name"]: c["value"] for c in self.jars[name]}
        return httpx.Client(base_url=self.base, cookies=cookies, headers={"Accept": "text/html"}, timeout=30)


async def open_link(desk: Desk, url: str, pin: str) -> None:
    """The patient opens the link of the slip by its PIN, at a phone."""
    await desk.page.size(360)
    await desk.open(url.removeprefix(desk.base))
    await desk.page.fill("#f-secret", pin)
    await desk.page.key("Enter", 13)
    await desk.page.until("location.pathname.startsWith('/web/own')")
    await desk.page.loaded()


async def sign(desk: Desk, study: str, folder: Path) -> float:
    """The radiologist writes in Arabic and signs, by four presses of keys; when that was."""
    page = desk.page
    await desk.log_in("radiologist", "/web/reading?lang=ar")
    shown = await desk.until_shown("/web/reading?lang=ar", "كريم")
    assert "CT" in shown
    await looked_at(desk, "/web/reading", folder / "reading")
    await desk.open("/web/reading?lang=ar")
    await page.evaluate(f"document.getElementById('open-{study}').focus()")
    await page.key("Enter", 13)  # press 1: it is claimed and opened
    await page.until("!!document.querySelector('#f-findings')")
    await page.loaded()
    beside = await desk.look()
    assert QUESTION in beside, "the clinical question stands beside the editor"
    await crash(desk, study, folder)
    await page.key("Digit1", 49, browser.ALT)  # press 2: a template; the other browser has saved meanwhile
    assert await page.evaluate("document.querySelector('#f-findings').value.includes('[')"), "with blanks"
    await page.until("!document.querySelector('#conflict').hidden")
    await desk.look()
    await page.press("#take-other")
    await page.until(f"document.querySelector('#f-findings')?.value.includes({FINDINGS!r})")
    await page.loaded()
    for field, text in (("title", TITLE), ("impression", IMPRESSION), ("conclusions", "Z03.89")):
        await page.evaluate(f"document.querySelector('#f-{field}').select()")
        await page.fill(f"#f-{field}", text)
    await page.until("document.querySelector('#saved').dataset.kind === 'good'")
    await looked_at(desk, f"/web/reading/{study}", folder / "editor")
    await desk.open(f"/web/reading/{study}?lang=ar")
    await page.key("Enter", 13, browser.CONTROL)  # press 3
    await page.until("location.pathname.endsWith('/check')")
    await page.loaded()
    checked = await desk.look()
    (folder / "check.png").write_bytes(await page.screenshot())
    assert IMPRESSION in checked, "what will be signed is shown"
    assert "ICD-10" in checked
    assert await page.evaluate("document.activeElement.value") == "final", "Enter signs"
    await page.key("Enter", 13)  # press 4
    signed = time.monotonic()
    await page.until("location.search.includes('notice=signed')")
    return signed


async def crash(desk: Desk, study: str, folder: Path) -> None:
    """The same radiologist at another browser, which is killed once it says that the text is saved."""
    await desk.keep("radiologist")
    await desk.back("radiologist")
    async with browser.browser(folder / "other") as page:
        other = Desk(page, desk.base, desk.script, desk.known)
        other.jars = desk.jars
        await other.back("radiologist")
        await page.open(f"{desk.base}/web/reading/{study}?lang=ar")
        await page.until("!!document.querySelector('#f-findings')")
        await page.fill("#f-findings", FINDINGS)
        await page.until("document.querySelector('#saved').dataset.kind === 'good'")


async def looked_at(desk: Desk, path: str, picture: Path) -> None:
    """A page on a phone and at a desk, in both languages: by axe, and by whoever opens the pictures."""
    for language in ("ar", "en"):
        for width in (360, 1280):
            await desk.page.size(width)
            await desk.open(f"{path}?lang={language}")
            picture.with_name(f"{picture.name}-{language}-{width}.png").write_bytes(await desk.page.screenshot())


async def until_there(ask: Callable[[], bool], within_s: float = 30.0) -> float:
    """When it was there."""
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(ask):
        assert time.monotonic() < deadline, "never there"
        await asyncio.sleep(0.05)
    return time.monotonic()


def test_what_is_signed_is_read_by_the_doctor_and_the_patient(
    archive: Archive, whole: LocalStack, told: dict[str, str], tmp_path: Path
) -> None:
    study = told["study_uid"]
    script, known = axe.source(), passwords(whole.home)

    async def run() -> Desk:
        async with browser.browser(tmp_path) as page:
            desk = Desk(page, archive.base, script, known)
            await desk.page.open(archive.base)
            await open_link(desk, told["link"], told["pin"])
            before = await desk.open(f"/web/own/studies/{study}?lang=ar")
            assert IMPRESSION not in before
            await desk.keep("patient")
            await page.size(1280)
            await desk.log_in("doctor", "/web/inbox")
            await desk.keep("doctor")
            (tmp_path / "other").mkdir()
            signed = await sign(desk, study, tmp_path)
            with desk.asks("patient") as patient, desk.asks("doctor") as treating:
                at_patient = await until_there(lambda: IMPRESSION in patient.get(f"/web/own/studies/{study}").text)
                at_doctor = await until_there(lambda: "كريم" in treating.get("/web/inbox").text)
            sys.stdout.write(
                f"signed, then seen by the patient after {at_patient - signed:.2f} s,"
                f" by the doctor after {at_doctor - signed:.2f} s\n"
            )
            await read(desk, study, tmp_path)
            return desk

    desk = asyncio.run(run())
    assert desk.faults == []


async def read(desk: Desk, study: str, folder: Path) -> None:
    """The doctor and the patient look, each at their own page; the PDF opens."""
    page = desk.page
    await desk.back("doctor")
    await page.size(1280)
    assert "كريم" in await desk.open("/web/inbox?lang=ar")
    await page.press("a[href^='/web/inbox/']")
    await page.until("location.pathname.split('/').length > 3")
    await page.loaded()
    assert IMPRESSION in await desk.look()
    (folder / "doctor.png").write_bytes(await page.screenshot())
    await desk.keep("doctor")
    await desk.back("patient")
    await page.size(360)
    own = await desk.open(f"/web/own/studies/{study}?lang=ar")
    assert IMPRESSION in own
    assert FINDINGS.split(".")[0] in own
    (folder / "patient.png").write_bytes(await page.screenshot())
    path = await page.evaluate("document.querySelector(\"a[href*='/pdf']\").getAttribute('href')")
    with desk.asks("patient") as patient:
        answer = await asyncio.to_thread(patient.get, path, headers={"Accept": "application/pdf"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf"), answer.text[:300]
    document = pypdfium2.PdfDocument(answer.content)
    assert len(document) == 1
    document[0].render(scale=1).to_pil().save(folder / "report.png")
    text = document[0].get_textpage().get_text_range()
    assert "كريم سالم" in text
    assert NATIONAL_ID in text
