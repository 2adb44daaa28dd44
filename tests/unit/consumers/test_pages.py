"""The pages on an archive in memory: whole in both languages, and no way around what the API decides."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html.parser import HTMLParser

import httpx
import pytest
from starlette.types import Scope

from consumers.web import app as web
from consumers.web.assets import Assets
from infra import ae_table, clock
from infra.ae_table import Ae
from producers import corrections, devices, links
from schemas.caller import Caller
from schemas.events import (
    AccessGranted,
    ConflictResolved,
    DeviceChanged,
    DeviceRegistered,
    DeviceRemoved,
    PatientLinked,
    PatientUnlinked,
    StudyCorrected,
    StudyReassigned,
    StudyRejected,
)
from schemas.identity import patient_key
from schemas.likeness import shard_of
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import Upsert
from tests.unit.consumers.archive import SECRET, MemoryArchive, part10

EVIL = "<script>alert(1)</script>\"'^<img src=x onerror=alert(2)>"
STUDY, OTHER = "1.2.3", "1.2.4"
KEY = patient_key(SECRET, patient_id="P-77", issuer="LOCAL", birth_date="19800101", sex="F", study_uid=STUDY).value
REPORT = "00000000-0000-4000-8000-000000000001"
SAID = "<b onclick=x>لا شيء</b> عقيدة 4 mm"
DOCUMENT = f'{{"resourceType":"DiagnosticReport","code":{{"text":"CT"}},"conclusion":"{SAID}"}}'.encode()
PAIR = sorted((KEY, "k1:" + "z" * 43))
MARK = hashlib.sha256(DOCUMENT).hexdigest()[:16]
PAGES = (
    "/",
    "/web/studies",
    "/web/studies?name=%D9%85%D9%86%D9%8A",
    f"/web/studies/{STUDY}",
    f"/web/studies/{STUDY}/accesses",
    f"/web/patients/{KEY}",
    f"/web/patients/{KEY}/timeline",
    f"/web/patients/{KEY}/timeline?body_part=CHEST",
    f"/web/patients/{KEY}/accesses",
    "/web/identities",
    "/web/identities/decided",
    "/web/arrivals",
    "/web/conflicts",
    "/web/conflicts?state=resolved",
    "/web/proposals",
    "/web/rejected",
    "/web/corrections",
    "/web/criticals",
    "/web/criticals?state=overdue",
    "/web/times?since=2025-02-20&until=2025-03-05",
    "/web/times?by=hour&interval=final-read",
    "/web/people",
    "/web/people?site=CAI-1",
    "/web/results-waiting",
    "/web/deliveries",
    "/web/peers",
    "/web/peers/one",
    "/web/peers/one?title=CT1",
    "/web/emergency-search",
    f"/web/studies/{STUDY}/correct",
    "/web/studies/9.9.9/correct",
    "/web/accesses",
    "/web/accesses?list=denied",
    "/web/accesses?list=actor",
    f"/web/accesses?list=study&study={STUDY}",
    f"/web/accesses?list=patient&patient={KEY}",
    f"/web/patients/{KEY}/links",
    f"/verify/{REPORT}/1/{MARK}",
    f"/verify/{REPORT}/1/0123456789abcdef",
)


@dataclass(frozen=True)
class As:
    """Everybody is the caller given; nobody without one."""

    found: Caller | None
    session: str = ""

    async def caller(self, scope: Scope) -> Caller | None:
        if self.session:
            scope["state"] |= {"session": self.session, "name": "Dr <Mona>"}
        return self.found


def caller(role: Role, patient_key: str = "") -> Caller:
    return Caller(f"person:{role}", role, DEFAULT_PURPOSE[role], frozenset({"LOCAL"}), str(role), patient_key)


LOCAL = caller(Role.LOCAL)


@pytest.fixture(scope="module")
def archive() -> MemoryArchive:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1"), part10("1.2.3.1.2")])
    archive.store([part10("1.2.4.1.1", study=OTHER, series="1.2.4.1", PatientName=EVIL, StudyDescription=EVIL)])
    archive.report(DOCUMENT, [STUDY], report_id=REPORT)
    month, day = f"{clock.now():%Y%m}", f"{clock.now():%Y%m%d}"
    rejection = {"reason": "truncated", "site": "LOCAL", "door": "dimse", "received": clock.rfc3339(clock.now())}
    conflict = {"first_sha256": "ab" * 32, "second_sha256": "cd" * 32, "reason": "content-differs"}
    found = {"month": month, "found": "2026-01-01T00:00:00Z", "study_uid": STUDY, "sop_uid": "1.2.3.1.1"}
    writes = [
        Upsert("rejections", {"day": day, "rejection_id": REPORT}, rejection | {"calling_ae": "CT<1>", "size": 5}, 1),
        Upsert("conflicts", found | {"second_offset": 7}, conflict, 1),
        Upsert(
            "identity_proposals",
            {"month": month, "study_uid": STUDY, "patient_key": KEY},
            {"proposal": "national-id-mismatch", "site": "LOCAL"},
            1,
        ),
        Upsert(
            "link_proposals",
            {
                "shard": shard_of(PAIR[0]),
                "patient_key": PAIR[0],
                "other_key": PAIR[1],
                "origin": "birth-date",
                "shared": "19800101",
            },
            {"score": 97, "why": ["name-alike", "birth-date"], "stamp": 1},
            1,
        ),
    ]
    asyncio.run(archive.tables.apply(writes))
    asyncio.run(ae_table.add(archive.tables, Ae("CT1", "10.2.0.17", 11112, "CAI-1")))
    return archive


def asked(
    archive: MemoryArchive,
    ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]],
    who: Caller | None = LOCAL,
    session: str = "",
) -> httpx.Response:
    async def run() -> httpx.Response:
        more = (web.register, corrections.register, devices.register, links.register)
        async with archive.client(*more, authenticator=As(who, session)) as client:
            return await ask(client)

    return asyncio.run(run())


def get(archive: MemoryArchive, path: str, who: Caller | None = LOCAL, **headers: str) -> httpx.Response:
    return asked(archive, lambda client: client.get(path, headers=headers), who)


class Parsed(HTMLParser):
    """What a page must not have, and what it must."""

    VOID = frozenset("meta link input img br".split())

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.bad: list[str] = []
        self.links: list[str] = []
        self.labelled, self.inputs = set[str](), set[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {n: v or "" for n, v in attrs}
        self.bad += [f"{tag} {n}" for n in about if n.startswith("on") or n == "style"]
        if tag == "style" or (tag == "script" and "src" not in about):
            self.bad.append(tag)
        self.links += [about[n] for n in ("href", "src", "action", "hx-get") if n in about]
        if tag == "label":
            self.labelled.add(about["for"])
        if tag in ("input", "select", "textarea") and about.get("type") != "hidden":
            self.inputs.add(about["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.bad.append(f"/{tag}")


@pytest.mark.parametrize("language", ["ar", "en"])
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole(archive: MemoryArchive, path: str, language: str) -> None:
    answer = get(archive, f"{path}{'&' if '?' in path else '?'}lang={language}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert f'<html lang="{language}" dir="{"rtl" if language == "ar" else "ltr"}">' in answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    parsed = Parsed(answer.text)
    assert (parsed.bad, parsed.open) == ([], [])
    assert parsed.inputs <= parsed.labelled
    assert [u for u in parsed.links if not u.startswith(("/", "#", "?", "http://sijil.test:8090/"))] == []
    assert len(answer.content) < 60_000


def test_what_came_from_outside_is_text(archive: MemoryArchive) -> None:
    for path in ("/web/studies", f"/web/studies/{OTHER}", "/web/arrivals", "/web/rejected"):
        answer = get(archive, path)
        assert "<script>alert" not in answer.text, path
        assert "<img src=x" not in answer.text, path
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in get(archive, "/web/studies").text
    page = get(archive, f"/web/studies/{STUDY}").text
    assert "\u2066&lt;b onclick=x\u2069&gt;" in page
    assert "عقيدة \u20664\u00a0mm\u2069" in page  # a figure keeps its unit on its right side in an Arabic line
    typed = get(archive, '/web/studies?name="><script>alert(3)</script>')
    assert "<script>alert(3)" not in typed.text


def test_a_page_is_an_event_of_who_looks(archive: MemoryArchive) -> None:
    before = len(archive.journal.published)
    get(archive, f"/web/studies/{STUDY}")
    events = [p.event for p in archive.journal.published[before:] if isinstance(p.event, AccessGranted)]
    assert {e.action for e in events} >= {"search", "read-status", "read-report"}
    assert {(e.actor, e.via) for e in events} == {("person:local", "page")}
    assert {s.study_uid for e in events for s in e.shown} == {STUDY}


def test_the_language_is_remembered(archive: MemoryArchive) -> None:
    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        first = await client.get("/web/peers?lang=en", headers={"Accept-Language": "ar"})
        assert "HttpOnly" in first.headers["set-cookie"]
        assert "SameSite=lax" in first.headers["set-cookie"]
        return await client.get("/web/peers", headers={"Accept-Language": "ar"})

    assert '<html lang="en"' in asked(archive, ask).text


def test_who_is_not_logged_in_is_led_to_it_and_back(archive: MemoryArchive) -> None:
    answer = get(archive, "/web/studies?name=x&lang=en", None)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/login?back=%2Fweb%2Fstudies%3Fname%3Dx%26lang%3Den",
    )
    assert get(archive, "/", None).headers["location"] == "/login"


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.TECHNICIAN, {"orders", "arrivals", "studies", "corrections"}),
        (Role.CLERK, {"orders"}),
        (Role.DOCTOR, {"inbox", "studies", "criticals"}),
        (Role.PATIENT, {"own"}),
        (
            Role.ADMINISTRATOR,
            {
                *("arrivals", "studies", "criticals", "times", "conflicts", "proposals", "rejected", "corrections"),
                *("people", "deliveries", "peers", "results-waiting"),
            },
        ),
        (Role.OFFICER, {"accesses", "corrections", "people", "peers"}),
        (Role.OPERATOR, {"deliveries"}),
    ],
)
def test_the_menu_has_what_a_role_may(archive: MemoryArchive, role: Role, allowed: set[str]) -> None:
    answer = get(archive, "/?lang=en", caller(role))
    assert set(re.findall(r'<li><a href="/web/([a-z-]+)"', answer.text)) == allowed


def test_a_refusal_is_a_page_that_says_what_to_do(archive: MemoryArchive) -> None:
    answer = get(archive, "/web/conflicts?lang=en", caller(Role.DOCTOR))
    assert answer.status_code == 403
    assert "You may not open this" in answer.text
    assert "glass" not in answer.text


def test_a_doctor_without_a_relation_is_asked_for_a_reason(archive: MemoryArchive) -> None:
    answer = get(archive, f"/web/studies/{STUDY}?lang=en", caller(Role.DOCTOR))
    assert answer.status_code == 403
    assert f'name="study_uid" value="{STUDY}"' in answer.text
    assert "Is it an emergency?" in answer.text
    assert "Hassan" not in answer.text


def test_nothing_there_and_nothing_valid(archive: MemoryArchive) -> None:
    assert get(archive, "/web/studies/9.9.9?lang=en").status_code == 404
    assert "Not found" in get(archive, "/web/nothing?lang=en").text
    assert "cannot be searched for" in get(archive, "/web/studies?from=x&lang=en").text
    assert get(archive, "/web/patients/nonsense").status_code == 400


def test_a_part_away_says_so_and_shows_nothing(archive: MemoryArchive) -> None:
    archive.journal.full = True
    try:
        answer = get(archive, f"/web/studies/{STUDY}?lang=en")
    finally:
        archive.journal.full = False
    assert answer.status_code == 503
    assert "A part of the archive is away" in answer.text
    assert "Hassan" not in answer.text


def test_a_patient_sees_who_looked(archive: MemoryArchive) -> None:
    month = f"{clock.now():%Y%m}"
    key = {"patient_key": KEY, "month": month, "access_id": REPORT, "study_uid": STUDY}
    about = {"actor": "person:d", "role": "doctor", "purpose": "ETREAT", "outcome": "emergency", "action": "emergency"}
    write = Upsert("accesses_by_patient", key, about | {"occurred": "2026-11-23T10:00:00Z"}, 1)
    asyncio.run(archive.tables.apply([write]))
    answer = get(archive, f"/web/patients/{KEY}/accesses?lang=en")
    assert "opened the file in an emergency" in answer.text


# ------------------------------------------------------------------------------------------------ forms


def post(
    archive: MemoryArchive, path: str, fields: dict[str, str], who: Caller = LOCAL, session: str = ""
) -> httpx.Response:
    return asked(archive, lambda client: client.post(path, data=fields), who, session)


CONFLICT = {"study": STUDY, "sop": "1.2.3.1.1", "serve": "cd" * 32, "offset": "7"}


def test_a_conflict_is_decided_by_one_form(archive: MemoryArchive) -> None:
    for _ in range(2):
        answer = post(archive, "/web/conflicts", CONFLICT)
        assert (answer.status_code, answer.headers["location"]) == (303, "/web/conflicts?notice=resolved")
    events = archive.journal.events(ConflictResolved)
    assert {(e.study_uid, e.sop_uid, e.served_sha256, e.as_of_offset) for e in events} == {
        (STUDY, "1.2.3.1.1", "cd" * 32, 7)
    }
    assert len({e.correction_id for e in events}) == 1, "a click too many is the same decision"
    assert "Decided" in get(archive, "/web/conflicts?notice=resolved&lang=en").text


LIKE = "\u206897\u2069 of \u2068100\u2069"
"""A value within a sentence stands in isolates."""


def test_two_files_are_joined_by_one_form_and_parted_by_another(archive: MemoryArchive) -> None:
    page = get(archive, "/web/identities?lang=en")
    fields = dict(re.findall('name="(id|one|other)" value="([^"]+)"', page.text))
    assert sorted((fields["one"], fields["other"])) == PAIR
    assert LIKE in page.text
    for _ in range(2):
        assert post(archive, "/web/identities", {**fields, "what": "join"}).status_code == 303
    assert {e.link_id for e in archive.journal.events(PatientLinked)} == {fields["id"]}
    archive.told(archive.journal.events(PatientLinked)[0])
    assert LIKE not in get(archive, "/web/identities?lang=en").text
    assert "Files that people joined" in get(archive, f"/web/patients/{KEY}/timeline?lang=en").text
    decided = get(archive, "/web/identities/decided?lang=en").text
    assert 'value="undo-linked"' in decided
    answer = post(archive, "/web/identities", {"one": fields["one"], "other": fields["other"], "what": "undo-linked"})
    assert answer.headers["location"] == "/web/identities/decided?notice=saved"
    archive.told(archive.journal.events(PatientUnlinked)[0])
    assert LIKE in get(archive, "/web/identities?lang=en").text
    assert "undo-linked" not in get(archive, "/web/identities/decided?lang=en").text
    assert post(archive, "/web/identities", {**fields, "what": "join"}, caller(Role.TECHNICIAN)).status_code == 403


DEVICE = {"title": "CT2", "host": "10.2.0.18", "port": "11113", "role": "modality", "site": "CAI-1"}


def test_a_device_is_added_changed_and_removed_by_the_administrator(archive: MemoryArchive) -> None:
    admin = caller(Role.ADMINISTRATOR)
    assert "Add a device" in get(archive, "/web/peers?lang=en", admin).text
    assert post(archive, "/web/peers/one", DEVICE, admin).headers["location"] == "/web/peers?notice=saved"
    changed = {**DEVICE, "port": "", "certificate": ":".join(["AB"] * 32), "tls": "yes"}
    assert post(archive, "/web/peers/one", changed, admin).status_code == 303
    (row,) = (r for r in get(archive, "/ae", admin).json()["ae"] if r["ae_title"] == "CT2")
    assert (row["host"], row["port"], row["certificate"], row["tls"]) == ("10.2.0.18", 0, "ab" * 32, True)
    for wrong, said in (
        ({"title": "A\\B"}, "This is no AE title."),
        ({"port": "70000"}, "This is no port."),
        ({"port": "x"}, "This is no port."),
        ({"host": ""}, "The address is missing."),
        ({"certificate": "ab"}, "A SHA-256 has 64"),
        ({"title": "*"}, "only the operator"),
        ({"role": "any"}, "only the operator"),
    ):
        refused = asked(
            archive,
            lambda c, wrong=wrong: c.post("/web/peers/one?lang=en", data={**DEVICE, **wrong}),  # type: ignore[misc]
            admin,
        )
        assert (refused.status_code, said in refused.text) == (422, True), wrong
    for role in (Role.OFFICER, Role.TECHNICIAN):
        assert post(archive, "/web/peers/one", DEVICE, caller(role)).status_code == 403
        assert post(archive, "/web/peers/removed", {"title": "CT2"}, caller(role)).status_code == 403
    assert "/web/peers/one" not in get(archive, "/web/peers", caller(Role.OFFICER)).text
    assert get(archive, "/web/peers/one?title=NONE", admin).status_code == 404
    assert post(archive, "/web/peers/removed", {"title": "CT2"}, admin).status_code == 303
    assert "CT2" not in get(archive, "/ae", admin).text
    assert post(archive, "/web/peers/removed", {"title": "CT2"}, admin).status_code == 404
    decided = archive.journal.events(DeviceRegistered) + archive.journal.events(DeviceChanged)
    decided += archive.journal.events(DeviceRemoved)
    assert [e.actor for e in decided] == [admin.actor] * 3, "what was refused is no decision"
    for event in decided:
        archive.told(event)
    for role in (Role.ADMINISTRATOR, Role.OFFICER):
        told = get(archive, "/ae/changes?limit=2", caller(role)).json()["changes"]
        assert [(c["what"], c["subject"]) for c in told] == [("removed", "CT2"), ("changed", "CT2")]
        assert (told[1]["before"]["port"], told[1]["after"]["certificate"]) == (11113, "ab" * 32)
        (first,) = get(archive, f"/ae/changes?before={told[1]['moment']}", caller(role)).json()["changes"]
        assert (first["what"], "before" in first) == ("registered", False)
        page = get(archive, "/web/peers?lang=en", caller(role)).text
        assert "Device removed" in page
        assert "ab" * 32 in page
    assert get(archive, "/ae/changes", caller(Role.TECHNICIAN)).status_code == 403
    for wrong_option in ("kind=all", "limit=0", "limit=1001", "limit=x", "before=yesterday"):
        assert get(archive, f"/ae/changes?{wrong_option}", admin).status_code == 400


def test_in_an_emergency_a_doctor_finds_a_patient_by_name(archive: MemoryArchive) -> None:
    doctor = caller(Role.DOCTOR)
    assert "/web/emergency-search" in get(archive, "/web/studies", doctor).text
    said = {"reason": "unconscious", "words": "Unconscious after <an accident>", "name": "منى", "born": "", "id": ""}
    page = post(archive, "/web/emergency-search?lang=en", said, doctor)
    assert page.status_code == 200
    form = dict(re.findall('name="(patient_key|back)" value="([^"]+)"', page.text))
    assert form == {"patient_key": KEY, "back": f"/web/patients/{KEY}"}
    assert 'value="Unconscious after &lt;an accident&gt;"' in page.text, "the same words open the file"
    assert "P-77" not in page.text
    assert "CT chest" not in page.text
    opened = post(archive, "/web/emergency", {**form, "reason": "unconscious", "words": said["words"]}, doctor)
    assert opened.headers["location"] == f"/web/patients/{KEY}?notice=opened"
    for wrong in ({"words": "short"}, {"name": ""}, {"name": "m"}):
        refused = post(archive, "/web/emergency-search?lang=en", said | wrong, doctor)
        assert (refused.status_code, "Say why in at least 10 letters" in refused.text) == (422, True)
    assert post(archive, "/web/emergency-search", said, caller(Role.TECHNICIAN)).status_code == 403


def test_a_form_of_another_session_is_refused(archive: MemoryArchive) -> None:
    before = len(archive.journal.events(ConflictResolved))
    for forged in ("", "00" * 32):
        assert post(archive, "/web/conflicts", CONFLICT | {"csrf": forged}, LOCAL, "mine").status_code == 403
    assert len(archive.journal.events(ConflictResolved)) == before

    async def honest(client: httpx.AsyncClient) -> httpx.Response:
        page = await client.get("/web/conflicts")
        assert "Dr &lt;Mona&gt;" in page.text
        found = re.search('name="csrf" value="([0-9a-f]{64})"', page.text)
        assert found
        return await client.post("/web/conflicts", data=CONFLICT | {"csrf": found[1]})

    assert asked(archive, honest, LOCAL, "mine").status_code == 303


def test_who_may_not_correct_cannot_by_a_form(archive: MemoryArchive) -> None:
    before = len(archive.journal.events(ConflictResolved))
    assert post(archive, "/web/conflicts", CONFLICT, caller(Role.OFFICER)).status_code == 403
    assert len(archive.journal.events(ConflictResolved)) == before


def test_the_ways_to_correct(archive: MemoryArchive) -> None:
    path = f"/web/studies/{STUDY}/correct"
    ids = [f"00000000-0000-4000-8000-0000000001{n:02}" for n in range(5)]
    now = {"now-StudyDescription": "CT chest", "StudyDescription": "CT abdomen", "now-AccessionNumber": "A-1"}
    said = {**now, "AccessionNumber": "A-1", "StudyDate": "2026-01-02", "now-StudyDate": "2025-02-28"}
    assert post(archive, path, {"what": "attributes", "id": ids[0], **said}).status_code == 303
    assert archive.journal.events(StudyCorrected)[-1].tags == ["00080020", "00081030"]
    patient = {"PatientID": "P-9", "PatientName": "محمد^علي", "PatientBirthDate": "1990-01-01", "PatientSex": "M"}
    assert post(archive, path, {"what": "patient", "id": ids[1], **patient}).status_code == 303
    assert archive.journal.events(StudyReassigned)
    assert post(archive, path, {"what": "reject", "id": ids[2], "code": "113001"}).status_code == 303
    assert archive.journal.events(StudyRejected)[-1].code == "113001"
    assert post(archive, path, {"what": "restore", "id": ids[3]}).status_code == 303
    for wrong in ({"what": "attributes", **now, "StudyDescription": "CT chest"}, {"what": "patient", "PatientID": ""}):
        assert post(archive, path, {"id": ids[4], **wrong}).status_code == 422
    answer = post(archive, path, {"what": "attributes", "id": ids[4], "StudyDate": "2026-13-45"})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text


def test_static_files_are_kept_for_ever(archive: MemoryArchive) -> None:
    assets = Assets()
    for name in ("style.css", "htmx.js", "plex-arabic-400.woff2", "mark.svg"):
        answer = get(archive, assets.url(name), None, **{"Accept-Encoding": "gzip"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    style = get(archive, assets.url("style.css"), None).text
    fonts = re.findall(r"url\(([^)]+)\)", style)
    assert len(fonts) == 4
    for font in fonts:
        assert get(archive, f"/static/{font}", None).status_code == 200
    assert get(archive, "/static/style.css", None).status_code == 404
    assert get(archive, "/static/..%2f..%2fapp.py", None).status_code == 404
