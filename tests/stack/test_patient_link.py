"""A patient's way to their file on the real servers: slip, link, PIN and code, report, PDF, images, trail, notices."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pypdfium2
import pytest

from schemas.orders import Order, resource
from tests.archive import Archive, wait_until
from tests.local_stack import LocalStack
from tests.unit.consumers.archive import part10

pytestmark = pytest.mark.connected

STUDY = "1.2.826.0.1.3680043.10.88.8.1"
NATIONAL_ID = "28503152101241"
NAME = "Rashad^Salma=سلمى رشاد"
CONCLUSION = "كيس بسيط قياسه 12 × 9 mm، ولا علامات حادة."
PHONE = "0100 765 4321"


def placed(archive: Archive) -> str:
    """An order of the study; its id."""
    order = Order(
        status="active",
        priority="routine",
        site="LOCAL",
        accession="PL-88",
        study_uid=STUDY,
        modality="CT",
        procedure_text="CT chest",
        patient_name=NAME,
        patient_id=NATIONAL_ID,
        issuer="",
        birth_date="19850315",
        sex="F",
        phone=PHONE,
    )
    answer = archive.post_json("/fhir/ServiceRequest", resource(order))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def report(archive: Archive) -> str:
    """A signed report; its id."""
    document = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "تصوير مقطعي للصدر"},
        "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}}],
        "conclusion": CONCLUSION,
    }
    answer = archive.post_json("/reports", document)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["report_id"])


def messages(home: Path) -> list[dict[str, Any]]:
    """SMS to this patient."""
    files = sorted((home / "outbox" / "sms").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    found = [json.loads(p.read_text(encoding="utf-8")) for p in files]
    return [m for m in found if m["to"] == "+201007654321"]


def test_a_patient_opens_the_own_file_by_the_slip_and_by_a_code(archive: Archive, whole: LocalStack) -> None:
    order = placed(archive)
    slip = archive.post_json(f"/orders/{order}/slips", {})
    assert slip.status_code == 201, slip.text
    pin = slip.json()["pin"]
    file = part10(f"{STUDY}.1.1", study=STUDY, series=f"{STUDY}.1", PatientName=NAME, PatientID=NATIONAL_ID,
                  PatientBirthDate="19850315", PatientSex="F", AccessionNumber="PL-88")  # fmt: skip
    assert archive.stow([file]).status_code == 200
    wait_until(lambda: archive.instance_count(STUDY) == 1, 60, "the study is searchable")
    id = report(archive)
    wait_until(lambda: archive.get(f"/reports/{id}").status_code == 200, 30, "the report is readable")
    key = archive.json(f"/studies/{STUDY}")["patient_key"]

    given = archive.post_json("/invitations", {"order_id": order, "factor": "pin", "once": False})
    assert given.status_code == 201, given.text
    path = given.json()["url"].removeprefix(archive.base)
    with httpx.Client(base_url=archive.base, timeout=60) as phone:
        assert phone.post(path, data={"do": "open", "secret": "000000" if pin != "000000" else "1"}).status_code == 422
        opened = phone.post(path, data={"do": "open", "secret": pin})
        assert (opened.status_code, opened.headers["location"]) == (303, "/web/own")
        assert "سلمى رشاد" in phone.get("/web/own?lang=ar").text
        # The figure with its unit is isolated, or it would be turned around in the Arabic line
        assert (
            CONCLUSION.replace("12 × 9 mm", "\u206612\u00a0×\u00a09\u00a0mm\u2069")
            in phone.get(f"/web/own/studies/{STUDY}?lang=ar").text
        )
        pdf = phone.get(f"/reports/{id}/pdf?lang=ar")
        text = pypdfium2.PdfDocument(pdf.content)[0].get_textpage().get_text_bounded()
        assert "سلمى رشاد" in text
        assert "ولا علامات حادة" in text
        printed = re.search(rf"/verify/{id}/1/([0-9a-f]{{16}})", text)
        assert printed
        images = phone.get(f"/web/own/studies/{STUDY}/images").text
        source = re.search(r'<img src="(/dicom-web/[^"]+)"', images)
        assert source
        assert phone.get(source[1].replace("&amp;", "&")).headers["content-type"] == "image/jpeg"
        assert phone.get(f"/dicom-web/studies/{STUDY}?accept=application%2Fzip").content[:2] == b"PK"
        assert phone.get("/changes").status_code == 403
        # Whoever holds the paper, without a session
        seen = archive.get(f"/verify/{id}/1/{printed[1]}?lang=en").text
        assert "This is the current version" in seen
        # Taken back
        assert httpx.delete(f"{archive.base}/invitations/{given.json()['invitation_id']}").status_code == 200
        assert phone.get("/me").json()["role"] == "local", "no session any more: this machine's own role"

    # A code to the phone of the order, in the outbox folder of this machine
    given = archive.post_json("/invitations", {"order_id": order, "factor": "otp", "send": True})
    token = given.json()["url"].rpartition("/")[2]
    sent = archive.post_json("/invitations/code", {"token": token})
    assert sent.json() == {"phone": "…321"}
    code = next(m[0] for s in reversed(messages(whole.home)) if (m := re.search(r"\b\d{6}\b", s["text"])))
    with httpx.Client(base_url=archive.base, timeout=60) as phone:
        assert phone.post("/invitations/open", json={"token": token, "secret": code}).status_code == 200
        assert phone.get("/me").json()["patient_key"] == key
        again = phone.post("/invitations/open", json={"token": token, "secret": code})
        assert again.json()["reason"] == "link-used"

    # What the patient's trail says of it, and the notice that the report is there
    def trail() -> bool:
        rows = archive.json(f"/patients/{key}/accesses")["accesses"]
        told = {(r["outcome"], r["action"], r.get("reason", "")) for r in rows}
        return told >= {
            ("denied", "open-link", "link-secret"),
            ("denied", "open-link", "link-used"),
            ("granted", "open-link", ""),
            ("invited", "invite-patient", ""),
            ("uninvited", "uninvite-patient", ""),
        }

    wait_until(trail, 30, "the patient's trail")
    wait_until(lambda: any("report is ready" in m["text"] for m in messages(whole.home)), 60, "the notice by SMS")
    assert not any("سلمى" in m["text"] or "Salma" in m["text"] for m in messages(whole.home))
