"""From what waits to the doctor's inbox, on the real servers: a draft is kept, a report signed, read and read back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from infra import clock
from schemas.report_content import Coded, Content, document_of
from tests.archive import Archive, wait_until
from tests.local_stack import LocalStack
from tests.stack.test_identity import Door
from tests.unit.consumers.archive import part10

pytestmark = pytest.mark.connected

STUDY = "1.2.826.0.1.3680043.10.88.21"
WRITTEN: dict[str, Any] = {
    "language": "ar",
    "title": "أشعة مقطعية على المخ",
    "findings": "نزيف",
    "impression": "حرج",
    "critical": True,
}


def test_a_study_waits_is_reported_and_reaches_its_doctor(archive: Archive, whole: LocalStack) -> None:
    file = part10(f"{STUDY}.1.1", study=STUDY, series=f"{STUDY}.1", StudyDate=f"{clock.now():%Y%m%d}", PatientID="R-21")
    assert archive.stow([file]).status_code == 200
    door = Door(whole)
    site = archive.settings.site
    radiologist = door.token("radiologist", "--site", site, "--person", "rad-21")
    doctor = door.token("doctor", "--person", "doc-21")

    def waits() -> dict[str, Any]:
        rows = door.ask(radiologist, "/reading?limit=1000").json()["waiting"]
        found: dict[str, Any] = next((r for r in rows if r["study_uid"] == STUDY), {})
        return found

    assert wait_until(waits, 60, "it waits for a report")["priority"] == "routine"
    assert door.ask(radiologist, f"/studies/{STUDY}/claim", {}).status_code == 201
    assert wait_until(lambda: waits().get("claimed_by"), 30, "others see who is at it") == "person:rad-21"

    path = f"{door.base}/studies/{STUDY}/draft"
    first = httpx.put(path, json=WRITTEN, headers={**radiologist, "If-None-Match": "*"}, timeout=30)
    assert first.status_code == 200, first.text
    later = {**radiologist, "If-Match": first.headers["etag"]}
    assert httpx.put(path, json={**WRITTEN, "findings": "نزيف حاد"}, headers=later, timeout=30).status_code == 200
    assert httpx.put(path, json=WRITTEN | {"title": "x"}, headers=later, timeout=30).status_code == 412
    kept = door.ask(radiologist, f"/studies/{STUDY}/draft")
    assert kept.json()["draft"]["findings"] == "نزيف حاد"

    content = Content(
        status="final",
        study_uids=(STUDY,),
        procedure=Coded(text=WRITTEN["title"]),
        impression="حرج",
        critical=True,
        referring="doc-21",
    )
    headers = {**radiologist, "Report-Id": kept.json()["becomes"]}
    signed = httpx.post(f"{door.base}/reports", json=document_of(content), headers=headers, timeout=30)
    assert signed.status_code == 201, signed.text
    dropped = httpx.delete(path, headers={**radiologist, "If-Match": kept.headers["etag"]}, timeout=30)
    assert dropped.status_code == 204
    assert door.ask(radiologist, f"/studies/{STUDY}/draft").json()["draft"] is None
    assert wait_until(lambda: not waits(), 30, "it waits no longer")

    def inbox() -> dict[str, Any]:
        told: dict[str, Any] = door.ask(doctor, "/inbox").json()
        return told if told["reports"] else {}

    # The report and its critical result are two events, one after the other.
    told = wait_until(lambda: found if (found := inbox()) and found["critical"] else {}, 30, "it is in the inbox")
    (row,) = told["reports"]
    assert (told["critical"], row["unread"], row["report_id"]) == (1, True, kept.json()["becomes"])
    report = f"/reports/{row['report_id']}"
    assert door.ask(doctor, report).status_code == 200
    assert wait_until(lambda: inbox()["unread"] == 0, 30, "it is read, since it was shown")
    back = {"words": "أُبلغت، ينقل للعناية المركزة"}
    assert door.ask(doctor, f"{report}/criticals/1/acknowledgement", back).status_code == 201
    assert wait_until(lambda: inbox()["critical"] == 0, 30, "it is read back")
