"""Staff as events, on the real servers: a table of staff goes in, is found, and who has left is let in nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.kafka import KafkaLog
from tests.archive import wait_until
from tests.local_stack import LocalStack
from tests.stack.test_identity import Door

pytestmark = pytest.mark.connected

SITE = "CAI-9"
NUMBER, NAME = "S-900417", "منى حسن"
HEAD = "staff_number,national_id,name,roles,sites,subspecialties,active\n"


def row(active: str) -> str:
    return f"{NUMBER},,{NAME},radiologist,{SITE},394914008,{active}\n"


def test_a_table_of_staff_goes_in_and_who_has_left_is_refused(whole: LocalStack, tmp_path: Path) -> None:
    door = Door(whole)
    admin = door.token("administrator")
    table = tmp_path / "staff.csv"

    def imported(text: str) -> str:
        table.write_text(HEAD + text, encoding="utf-8-sig")
        done = whole.sijil("people", "import", str(table))
        return f"{done.returncode} {done.stdout}{done.stderr}"

    bad = imported(row("true") + ",,,nobody,,,\n")
    assert bad.startswith("1 ")
    assert "line 3" in bad.lower(), bad

    def listed() -> list[dict[str, object]]:
        found: list[dict[str, object]] = door.ask(admin, f"/people?site={SITE}").json()["people"]
        return found

    (person,) = wait_until(listed, 30, "the good line went in")
    id = str(person["person_id"])
    assert door.ask(admin, f"/fhir/Practitioner/{id}").json()["name"][0]["text"] == NAME
    assert imported(row("true")).startswith("0 ")

    who = door.token("radiologist", "--site", SITE, "--person", id)
    not_theirs = door.token("doctor", "--site", SITE, "--person", id)
    search = "/dicom-web/studies?limit=1"
    assert door.ask(who, search).status_code == 200
    assert door.ask(not_theirs, search).json()["reason"] == "role-not-held"

    assert imported(row("false")).startswith("0 ")

    def reason() -> str:
        answer = door.ask(who, search)
        return str(answer.json()["reason"]) if answer.status_code == 403 else ""

    assert wait_until(reason, 60, "who has left is refused") == "person-left"

    log = KafkaLog(whole.settings("operator"))
    try:
        records = [r for r in log.read("sijil.people", {}, log.ends("sijil.people")) if r.key == id.encode()]
    finally:
        log.close()
    assert len(records) >= 3  # registered, role stated, left; what came twice is told once
    said = b"".join(r.value or b"" for r in records)
    assert NUMBER.encode() not in said
    assert NAME.encode() not in said
