"""The radiologist's pages on an archive in memory: from the list to a signed report, and what two people do at once."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from consumers.web import app as web
from consumers.web import show
from consumers.web.coded_conclusion import ICD10, SNOMED, coded, line_of
from consumers.web.language import LANGUAGES
from consumers.web.report_form import content, draft_of_form, draft_of_report
from consumers.web.report_templates import blanks, fitting, load
from infra import clock
from producers import reading, report_door
from schemas.caller import Caller
from schemas.dose_report import XRAY_DOSE
from schemas.drafts import Draft
from schemas.events import ReadingClaimed, ReadingReleased, ReportIssued
from schemas.report_content import Coded, Content, content_of, document_of, signature_of
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import Upsert
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.consumers.test_pages import As, Parsed
from tests.unit.consumers.test_reading import NOW
from tests.unit.schemas.test_dose_report import ct

STUDY, EARLIER = "1.2.3", "1.2.4"
EVIL = "<script>alert(1)</script>\"'"
WRITTEN = {"language": "ar", "title": "أشعة مقطعية على الصدر", "findings": "سطر\r\nآخر", "impression": f"طبيعي {EVIL}"}


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> MemoryArchive:
    ticks = itertools.count()
    monkeypatch.setattr(clock, "now", lambda: NOW + timedelta(milliseconds=next(ticks)))
    archive = MemoryArchive()
    archive.store([part10("1.2.4.1.1", study=EARLIER, series="1.2.4.1", StudyDescription=EVIL)])
    archive.store([part10("1.2.3.1.1", BodyPartExamined="CHEST")])
    return archive


def person(name: str = "r1", role: Role = Role.RADIOLOGIST) -> Caller:
    return Caller(f"person:{name}", role, DEFAULT_PURPOSE[role], frozenset({"LOCAL"}), name)


Ask = Callable[[httpx.AsyncClient], Awaitable[Any]]


def asked(archive: MemoryArchive, ask: Ask, who: Caller | None = None) -> Any:
    async def run() -> Any:
        rooms = (web.register, reading.register, report_door.register)
        async with archive.client(*rooms, authenticator=As(who or person())) as client:
            return await ask(client)

    return asyncio.run(run())


def hidden(text: str, name: str) -> str:
    found = re.search(f'name="{name}" value="([^"]*)"', text)
    assert found, name
    return found[1]


def told(archive: MemoryArchive) -> None:
    """What was published since is projected."""
    for published in archive.journal.published:
        if isinstance(published.event, ReportIssued | ReadingClaimed | ReadingReleased):
            archive.told(published.event)


def test_what_is_coded_is_taken_as_given() -> None:
    line = "j18.9 pneumonia;  ٢٣٣٦٠٤٠٠٧ |Pneumonia| ؛ التهاب رئوي; J18.9x y"
    said = coded(line)
    assert [(c.system, c.code, c.text) for c in said] == [
        (ICD10, "J18.9", "pneumonia"),
        (SNOMED, "233604007", "Pneumonia"),
        ("", "", "التهاب رئوي"),
        (ICD10, "J18.9X", "y"),
    ]
    assert coded(line_of(said)) == said
    other = Coded(text="Pneumonia", system="http://id.who.int/icd/release/11/mms", code="CA40")
    assert coded(line_of([other, *said[:1]]), [other]) == (other, said[0]), "another system's stays what it was"
    assert coded(" ; ") == ()


def test_priors_of_the_same_part_come_first_then_of_the_same_device() -> None:
    def entry(uid: str, when: str, modality: str, part: str, kind: str = "study") -> dict[str, Any]:
        return {"kind": kind, "study_uids": [uid], "when": when, "modalities": [modality], "text": "", "site": "A",
                "body_parts": [part] if part else []}  # fmt: skip

    entries = [
        entry("now", "2025-03-01", "CT", "CHEST"),
        entry("new", "2025-02-01", "MR", "KNEE"),
        entry("report", "2025-02-02", "CT", "CHEST", "report"),
        entry("device", "2024-02-01", "CT", ""),
        entry("part", "2023-02-01", "CR", "Chest"),
        entry("both", "2020-02-01", "CT", "CHEST"),
    ]
    found = show.priors(entries, "now", ["CT"], ["CHEST"])
    assert [(p.uid, p.parts) for p in found] == [
        ("both", ("CHEST",)), ("part", ("Chest",)), ("device", ()), ("new", ())
    ]  # fmt: skip


async def sign(client: httpx.AsyncClient, written: dict[str, str], save_id: str = "", **more: str) -> httpx.Response:
    checked = await client.post(
        f"/web/reading/{STUDY}/check", data={**written, "save_id": save_id, "base_version": "0"} | more
    )
    assert checked.status_code == 200, checked.text
    form = {"save_id": hidden(checked.text, "save_id"), "as": more.get("as", "final")}
    return await client.post(f"/web/reading/{STUDY}/sign", data=form)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pages_are_whole(archive: MemoryArchive, language: str) -> None:
    order = {
        "version": 1,
        "patient_key": "",
        "study_uid": STUDY,
        "status": "active",
        "priority": "stat",
        "reason": EVIL,
        "authored": "x",
    }
    id = "00000000-0000-4000-8000-00000000000a"
    urgent = {n: v for n, v in order.items() if n != "reason"}
    key = {"site": "LOCAL", "accession": "A-1", "order_id": id}
    expected = Upsert("orders_by_study", {"study_uid": STUDY, "order_id": id}, {"basis": "accession"}, 1)
    stated = Upsert("orders", {"order_id": id, "version": 1}, order, 1)
    asyncio.run(archive.wrote([stated, expected, Upsert("priorities_by_accession", key, urgent, 1)]))

    async def look(client: httpx.AsyncClient) -> None:
        shown = {}
        for path in ("", f"/{STUDY}", f"/{STUDY}/prior?of={EARLIER}"):
            answer = await client.get(f"/web/reading{path}", params={"lang": language} if "?" not in path else None)
            assert answer.status_code == 200, answer.text
            parsed = Parsed(answer.text)
            assert (parsed.bad, parsed.open) == ([], [])
            assert parsed.inputs <= parsed.labelled
            assert "<script>alert" not in answer.text
            shown[path] = answer.text
        assert LANGUAGES[language].text("priority.stat") in shown[""]
        assert shown[""].index(f"/{STUDY}/claim") < shown[""].index(f"/{EARLIER}/claim"), "the urgent one first"
        assert "&lt;script&gt;alert(1)" in shown[f"/{STUDY}"], "the clinical question"
        assert 'data-template="ct-chest"' in shown[f"/{STUDY}"]
        assert f"/prior?of={EARLIER}" in shown[f"/{STUDY}"]

    asked(archive, look)


def test_from_the_list_to_a_signed_report(archive: MemoryArchive) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post(f"/web/reading/{STUDY}/claim")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/web/reading/{STUDY}")
        saved = (await client.post(f"/web/reading/{STUDY}/draft", data=WRITTEN)).json()
        assert saved["state"] == "saved"
        page = (await client.get(f"/web/reading/{STUDY}")).text
        assert hidden(page, "save_id") == saved["save_id"], "a reload goes on where the save was"
        assert "سطر\nآخر" in page
        said = {"critical": "1", "category": "BI-RADS 2", "conclusions": "J18.9 التهاب", f"compared-{EARLIER}": "1"}
        answer = await sign(client, {**WRITTEN, **said}, saved["save_id"])
        assert (answer.status_code, answer.headers["location"]) == (303, "/web/reading?notice=signed")
        again = await client.post(f"/web/reading/{STUDY}/sign", data={"save_id": saved["save_id"]})
        assert again.headers["location"] == "/web/reading?notice=signed", "a second click signs nothing twice"

    asked(archive, work)
    (issued,) = archive.journal.events(ReportIssued)
    assert (issued.status, issued.signed_by, issued.study_uids, issued.critical) == (
        "final",
        "person:r1",
        [STUDY],
        True,
    )
    document = msgspec.json.decode(archive.objects.get(issued.bucket, issued.document_key))
    said, signature = content_of(document), signature_of(document)
    assert said.category.text == "BI-RADS 2"
    assert said.conclusions == (Coded(text="التهاب", system=ICD10, code="J18.9"),)
    assert (said.findings, said.impression) == ("سطر\nآخر", f"طبيعي {EVIL}")
    assert (said.language, said.comparisons, said.body_part.code) == ("ar", (EARLIER,), "CHEST")
    assert signature is not None
    assert signature.who == "person:r1"
    assert [e.reason for e in archive.journal.events(ReadingReleased)] == ["signed"]
    told(archive)
    assert f"/{STUDY}/claim" not in asked(archive, lambda c: c.get("/web/reading")).text


def test_images_that_came_after_a_text_was_begun_are_told_before_it_is_signed(archive: MemoryArchive) -> None:
    notice = LANGUAGES["ar"].text("reading.came", when="\0").partition("\0")[0]

    async def begin(client: httpx.AsyncClient) -> str:
        saved = (await client.post(f"/web/reading/{STUDY}/draft", data=WRITTEN)).json()
        page = (await client.get(f"/web/reading/{STUDY}")).text
        assert notice not in page
        return str(saved["save_id"])

    save_id = asked(archive, begin)
    archive.store([part10("1.2.3.1.2", BodyPartExamined="CHEST", InstanceNumber="2")])
    came = {"last_images": clock.now()}
    asyncio.run(archive.tables.apply([Upsert("studies", {"study_uid": STUDY}, came, 10**9)]))

    async def go_on(client: httpx.AsyncClient) -> None:
        assert notice in (await client.get(f"/web/reading/{STUDY}")).text
        check = await client.post(f"/web/reading/{STUDY}/check", data={**WRITTEN, "save_id": save_id})
        assert notice in check.text
        answer = await client.post(f"/web/reading/{STUDY}/sign", data={"save_id": hidden(check.text, "save_id")})
        assert answer.status_code == 303, "it is told, the decision is theirs"

    asked(archive, go_on)


def test_another_tab_is_shown_and_not_written_over(archive: MemoryArchive) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        first = (await client.post(f"/web/reading/{STUDY}/draft", data=WRITTEN)).json()
        there = {**WRITTEN, "findings": "من النافذة الأخرى", "save_id": first["save_id"]}
        second = (await client.post(f"/web/reading/{STUDY}/draft", data=there)).json()
        mine = {**WRITTEN, "findings": "من هنا", "save_id": first["save_id"]}
        late = (await client.post(f"/web/reading/{STUDY}/draft", data=mine)).json()
        assert (late["state"], late["save_id"]) == ("changed", second["save_id"])
        page = await client.post(f"/web/reading/{STUDY}/check", data=mine)
        assert page.status_code == 409
        assert "من هنا" in page.text
        assert "من النافذة الأخرى" in page.text
        stale = await client.post(f"/web/reading/{STUDY}/sign", data={"save_id": first["save_id"]})
        assert stale.status_code == 409
        assert archive.journal.events(ReportIssued) == []
        answer = await sign(client, mine, hidden(page.text, "save_id"))
        assert answer.status_code == 303

    asked(archive, work)


def test_a_resident_writes_and_a_radiologist_signs(archive: MemoryArchive) -> None:
    answer = asked(archive, lambda c: sign(c, WRITTEN), person("trainee", Role.RESIDENT))
    assert answer.headers["location"] == "/web/reading?notice=preliminary"
    (first,) = archive.journal.events(ReportIssued)
    assert (first.status, first.signed_by) == ("preliminary", "")
    told(archive)

    async def supervise(client: httpx.AsyncClient) -> httpx.Response:
        page = (await client.get(f"/web/reading/{STUDY}")).text
        assert "سطر\nآخر" in page
        base = {n: hidden(page, n) for n in ("report_id", "base_version")}
        assert base == {"report_id": first.report_id, "base_version": "1"}
        return await sign(client, {**WRITTEN, "findings": "بعد المراجعة"}, **base)

    assert asked(archive, supervise).headers["location"] == "/web/reading?notice=signed"
    second = archive.journal.events(ReportIssued)[-1]
    assert (second.report_id, second.version, second.status) == (first.report_id, 2, "final")
    assert (second.author, second.signed_by) == ("person:trainee", "person:r1")


def test_who_changed_the_report_meanwhile_is_shown_first(archive: MemoryArchive) -> None:
    asked(archive, lambda c: sign(c, WRITTEN))
    told(archive)
    report = archive.journal.events(ReportIssued)[0].report_id
    change = {"report_id": report, "base_version": "1", "change": "amended"}

    async def amend(client: httpx.AsyncClient) -> httpx.Response:
        page = (await client.get(f"/web/reading/{STUDY}?amend={report}")).text
        assert {n: hidden(page, n) for n in ("report_id", "base_version")} == {"report_id": report, "base_version": "1"}
        return await sign(client, {**WRITTEN, "impression": "أضيف"}, **change)

    assert asked(archive, amend, person("r2")).status_code == 303
    told(archive)

    async def late(client: httpx.AsyncClient) -> None:
        answer = await sign(client, {**WRITTEN, "impression": "تصحيح آخر"}, **change)
        assert answer.status_code == 409
        assert "أضيف" in answer.text, "what came between stands beside"
        assert hidden(answer.text, "base_version") == "2"
        more = {**change, "base_version": "2"}
        done = await sign(client, {**WRITTEN, "impression": "تصحيح آخر"}, hidden(answer.text, "save_id"), **more)
        assert done.status_code == 303

    asked(archive, late)
    assert [(e.version, e.status) for e in archive.journal.events(ReportIssued)] == [
        (1, "final"),
        (2, "amended"),
        (3, "amended"),
    ]


def test_a_resident_does_not_change_what_is_signed(archive: MemoryArchive) -> None:
    asked(archive, lambda c: sign(c, WRITTEN))
    told(archive)
    report = archive.journal.events(ReportIssued)[0].report_id
    change = {"report_id": report, "base_version": "1", "change": "amended"}
    answer = asked(archive, lambda c: sign(c, WRITTEN, **change), person("trainee", Role.RESIDENT))
    assert answer.status_code == 409, answer.text
    assert len(archive.journal.events(ReportIssued)) == 1
    kept = asked(archive, lambda c: c.get(f"/web/reading/{STUDY}"), person("trainee", Role.RESIDENT))
    assert "سطر\nآخر" in kept.text, "what was written is not lost"


def test_nothing_is_signed_empty_and_blanks_are_named(archive: MemoryArchive) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        empty = await client.post(f"/web/reading/{STUDY}/check", data={"language": "en", "title": "CT"})
        assert empty.status_code == 422
        text = {**WRITTEN, "findings": "[لا يوجد]", "save_id": hidden(empty.text, "save_id")}
        checked = await client.post(f"/web/reading/{STUDY}/check", data=text)
        assert 'role="alert"' in checked.text
        assert (await client.post(f"/web/reading/{STUDY}/draft", data={"language": "xx"})).status_code == 400
        doctor = await client.post(f"/web/reading/{STUDY}/release")
        assert doctor.headers["location"] == "/web/reading?notice=released"

    asked(archive, work)
    refused = asked(archive, lambda c: c.get(f"/web/reading/{STUDY}"), person("d", Role.DOCTOR))
    assert refused.status_code == 403


def test_templates_fit_the_study_and_are_whole() -> None:
    templates = load()
    assert len({t.key for t in templates}) == len(templates) >= 10
    for template in templates:
        for text in template.texts.values():
            assert all((text.title, text.findings, text.impression))
            assert blanks(text.findings, text.impression)
            assert text.findings.count("[") == text.findings.count("]") == len(blanks(text.findings))
    assert fitting(templates, ["CT"], ["CHEST"], "")[0].key == "ct-chest"
    assert fitting(templates, ["CT", "SR"], [], "CT Brain plain")[0].key == "ct-brain"
    assert fitting(templates, ["CR"], [], "أشعة على الصدر")[0].key == "xr-chest"
    assert fitting(templates, ["XA"], ["HEART"], "") == []


def test_what_the_editor_does_not_show_stays() -> None:
    before = Content(
        status="final",
        study_uids=("1.2", "1.3"),
        procedure=Coded(text="CT", system="http://loinc.org", code="24627-2"),
        technique="Contrast",
        conclusions=(Coded(system="http://hl7.org/fhir/sid/icd-10", code="I26"),),
        contacts=("dr-9",),
        referring="dr-1",
        interpreters=("r1",),
    )
    row = {"document": document_of(before), "report_id": "0" * 8, "version": 3, "status": "final"}
    draft = draft_of_report(row, "ar")
    assert (draft.base_version, draft.change, draft.title) == (3, "amended", "CT")
    after = content(draft, study_uid="1.2", status="amended", author="r2", before=before)
    assert (after.technique, after.conclusions, after.contacts) == (before.technique, before.conclusions, ("dr-9",))
    assert (after.study_uids, after.procedure, after.interpreters) == (("1.2", "1.3"), before.procedure, ("r1", "r2"))
    form = {"title": " CT ", "critical": "1", "compared-1.5": "1", "base_version": "3", "language": "en"}
    assert draft_of_form(form) == Draft(language="en", title="CT", critical=True, comparisons=("1.5",), base_version=3)


def test_the_dose_of_the_device_is_shown_and_signed(archive: MemoryArchive) -> None:
    report = ct(("1.1", "2.5", "10"), ("1.2", "14.25", "402.5"), total="412.5")
    values = {"Modality": "SR", "ContentSequence": report.ContentSequence}
    archive.store([part10("1.2.3.9.1", series="1.2.3.9", SOPClassUID=XRAY_DOSE, **values)])

    async def work(client: httpx.AsyncClient) -> None:
        page = (await client.get(f"/web/reading/{STUDY}", params={"lang": "en"})).text
        assert ["14.25 mGy" in page, "412.5 mGy.cm" in page, "Total DLP" in page] == [True] * 3
        saved = (await client.post(f"/web/reading/{STUDY}/draft", data=WRITTEN)).json()
        checked = await client.post(
            f"/web/reading/{STUDY}/check", data={**WRITTEN, "save_id": saved["save_id"], "base_version": "0"}
        )
        assert "412.5 mGy.cm" in checked.text
        form = {"save_id": hidden(checked.text, "save_id"), "as": "final"}
        assert (await client.post(f"/web/reading/{STUDY}/sign", data=form)).status_code == 303

    asked(archive, work)
    (issued,) = archive.journal.events(ReportIssued)
    document = msgspec.json.decode(archive.objects.get("sijil-documents", issued.document_key))
    said = {d.code: (str(d.value), d.unit) for d in content_of(document).dose}
    assert said == {"113830": ("14.25", "mGy"), "113813": ("412.5", "mGy.cm")}
    assert {r["reference"] for r in document["result"]} >= {"#dose-1", "#dose-2"}
