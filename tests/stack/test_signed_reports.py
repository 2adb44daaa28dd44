"""The life of a report on the real servers: a resident writes, a radiologist signs, a doctor reads and reads back; an
urgent result goes from contact to contact; SR and PDF instances are reports of their study; the times of it all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from infra import clock
from infra.chain import ChainedLog
from infra.kafka import KafkaLog
from schemas.events import CriticalRaised
from schemas.report_content import Content, content_of, document_of
from tests.archive import Archive, wait_until
from tests.local_stack import LocalStack, superuser
from tests.stack.test_archiver import instance
from tests.stack.test_identity import Door
from tests.unit.streams.test_instance_reports import PDF, pdf, sr

pytestmark = pytest.mark.connected


def of_study(study: str) -> dict[str, Any]:
    """What puts an instance of the samples into a study of ours."""
    return {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.9", "PatientID": f"P-{study}"}


def test_from_writing_to_reading_back(archive: Archive, whole: LocalStack, tmp_path: Path) -> None:
    study = f"1.2.89.{clock.now_ms()}"
    files = [
        instance(study, ExplicitVRLittleEndian),
        sr(**of_study(study), SOPInstanceUID=f"{study}.9.1", VerificationFlag="VERIFIED", CompletionFlag="COMPLETE"),
        pdf(**of_study(study), SOPInstanceUID=f"{study}.9.2"),
    ]
    assert archive.stow(files).status_code == 200
    wait_until(lambda: archive.instance_count(study) == 3, 60, "the study is found")

    door = Door(whole)
    doctor = door.token("doctor", "--person", "dr-89")
    resident = door.token("resident", "--site", "LOCAL", "--person", "res-89")
    senior = door.token("radiologist", "--site", "LOCAL", "--person", "senior-89")
    assert door.ask(senior, f"/dicom-web/studies/{study}/metadata").status_code == 200
    assert door.ask(senior, f"/dicom-web/studies/{study}/series/{study}.1").status_code == 200  # opened

    def send(method: str, path: str, who: dict[str, str], body: Any, **headers: str) -> httpx.Response:
        return httpx.request(method, door.base + path, headers=who | headers, json=body, timeout=30)

    said = Content(
        status="final",
        study_uids=(study,),
        findings="نزف داخل الجمجمة",
        critical=True,
        contacts=("dr-89",),
        language="ar",
    )
    written = send("POST", "/reports", resident, document_of(said)).json()
    id = written["report_id"]
    assert (written["status"], written["version"]) == ("preliminary", 1)
    assert written["critical_id"]
    stale = send("PUT", f"/reports/{id}", resident, document_of(said), **{"If-Match": 'W/"7"'})
    assert (stale.status_code, stale.json()["current"]["version"]) == (412, 1)
    assert send("POST", f"/reports/{id}/signature", resident, {}, **{"If-Match": 'W/"1"'}).status_code == 403
    seen = {"sha256": written["sha256"]}
    signed = send("POST", f"/reports/{id}/signature", senior, seen, **{"If-Match": 'W/"1"'})
    assert (signed.status_code, signed.json()["status"], signed.json()["signed_by"]) == (
        201,
        "final",
        "person:senior-89",
    )

    # What it says, to the doctor whom it names, and that it waits to be read back
    def reads() -> Any:
        answer = door.ask(doctor, f"/reports/{id}")
        return answer if answer.headers.get("etag") == 'W/"2"' else None

    document = json.loads(wait_until(reads, 30, "the doctor reads it").content)
    assert content_of(document).findings == "نزف داخل الجمجمة"

    def waiting(who: dict[str, str], options: str = "") -> list[Any]:
        found: list[Any] = door.ask(who, f"/criticals{options}").json()["criticals"]
        return [c for c in found if study in c["study_uids"]]

    (task,) = waiting(doctor, "?mine=1")
    assert (task["report_id"], task["version"], task["overdue"]) == (id, 1, False)
    back = {"words": "bleeding: I call the surgeon"}
    assert send("POST", f"/reports/{id}/criticals/1/acknowledgement", doctor, back).status_code == 201
    wait_until(lambda: waiting(doctor) == [], 30, "it waits no more")
    (told,) = door.ask(senior, f"/reports/{id}/criticals").json()["criticals"]
    assert (told["clinician"], told["words"]) == ("dr-89", back["words"])

    # One whose time is over goes from contact to contact, and stays with the last
    log = KafkaLog(superuser(whole.settings("worker")))
    chain = ChainedLog(log, tmp_path, f"/test/REPORTS/{clock.uuid7()}", backlog_max=10, anchors=None)
    overdue = CriticalRaised(
        critical_id=str(clock.uuid7()), report_id=id, version=2, study_uids=[study], site="LOCAL", raised_by="person:x",
        raised="2026-01-01T00:00:00Z", contacts=["dr-1", "dr-2", "dr-3"], within_s=1, due="2026-01-01T00:00:01Z",
    )  # fmt: skip
    try:
        chain.publish(overdue, subject=id).acknowledged.result(20)
        last = wait_until(
            lambda: [c for c in waiting(senior, "?state=overdue") if c["level"] == 2], 40, "it went to the last contact"
        )
    finally:
        chain.close(5)
        log.close()
    assert last[0]["contact"] == "dr-3"
    send("POST", f"/reports/{id}/criticals/2/acknowledgement", senior, back | {"clinician": "dr-3", "channel": "phone"})

    # The SR and the PDF are reports too
    def reports() -> Any:
        found = archive.json(f"/studies/{study}/reports")["reports"]
        return found if len(found) == 3 else None

    found = {r["report_id"]: r for r in wait_until(reports, 60, "the instances are reports")}
    del found[id]
    assert sorted(r["status"] for r in found.values()) == ["final", "preliminary"]
    contents = [content_of(r["document"]) for r in found.values()]
    assert {c.findings.partition("\n")[0] for c in contents} == {"كبد طبيعي", ""}
    assert [p.data for c in contents for p in c.presented] == [PDF]

    steps = ["arrived", "complete", "opened", "preliminary", "final", "read"]

    def times() -> Any:
        found = archive.json(f"/studies/{study}/times")
        return found if set(steps) <= set(found["times"]) else None

    told_times = wait_until(times, 60, "all steps are told")
    assert told_times["seconds"]["final-read"] >= 0
    groups = archive.json("/times?site=LOCAL&by=modality")["groups"]
    assert any("arrived-final" in g["intervals"] for g in groups)
