"""HL7 v2 on the real servers, from HAPI and a sender that leaves: results find their studies, nothing is doubled."""

from __future__ import annotations

import asyncio
import io
import socket
from pathlib import Path
from typing import Any

import pydicom
import pytest

from infra.mllp import MllpClient, frame
from schemas.hl7 import joined, parse
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.hl7v2 import hapi
from tests.unit.producers.hl7.samples import header, oru, patient
from tests.unit.producers.hl7.test_orders import orm

pytestmark = pytest.mark.connected

ACCESSION, NUMBER, REPORT = "HL7-77", "HL7-P-77", "HL7-R-77"
WHO = patient(NUMBER, name="CANARYHL7^سامي", born="19700101", sex="M")
FINDINGS = "لا يوجد نزف داخل القحف"


def file(folder: Path) -> tuple[str, bytes]:
    """A study of the patient of the messages."""
    ((instance,),) = make_ct(folder, studies=1, slices=1, seed=7707, rows=16)
    ds = pydicom.dcmread(instance.path)
    ds.AccessionNumber, ds.PatientID, ds.PatientName = ACCESSION, NUMBER, "Seen^InImages"
    out = io.BytesIO()
    ds.save_as(out)
    return instance.study, out.getvalue()


@pytest.mark.client("HAPI HL7v2", feature="ORU, ORM, ADT by MLLP")
def test_what_a_ris_sends(archive: Archive, tmp_path: Path) -> None:
    settings = archive.settings
    result: dict[str, Any] = {"number": REPORT, "accession": ACCESSION, "who": WHO}
    unicode = header("ORU^R01", "R1", charset="UNICODE UTF-8")
    preliminary = oru(FINDINGS, status="P", control="R1", **result).replace(header("ORU^R01", "R1"), unicode)
    stated = joined([header("ADT^A08^ADT_A01", "R2"), "EVN|A08|20260102", WHO, "PV1|1|O"])
    order = orm(message="R3", who=WHO).replace("PL7", "HL7-O-77")
    none = oru(FINDINGS, status="Z", control="R4", **result)
    answers = hapi.send(settings.hl7_port, [preliminary, preliminary, stated, order, none], tmp_path)
    assert answers == [["AA", "R1"], ["AA", "R1"], ["AA", "R2"], ["AA", "R3"], ["AE", "R4", "103"]]

    study, data = file(tmp_path)
    assert archive.stow([data]).status_code == 200

    def reports() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = archive.json(f"/studies/{study}/reports")["reports"]
        return found

    # It waited, and is filed when its study is there.
    wait_until(lambda: [r["status"] for r in reports()] == ["preliminary"], 30, "the result found its study")

    # A sender that leaves before it is answered: what it said is kept all the same, and once.
    final = oru(FINDINGS, control="R5", **result)
    with socket.create_connection((settings.hl7_host, settings.hl7_port), 10) as leaves:
        leaves.sendall(frame(final.encode("cp1256")))
    wait_until(lambda: "final" in [r["status"] for r in reports()], 30, "the result of a sender that left")

    async def again() -> str:
        async with MllpClient(settings.hl7_host, settings.hl7_port) as client:
            return parse((await client.send(final.encode("cp1256"))).decode("ascii")).first("MSA").text(1)

    assert asyncio.run(again()) == "AA"
    (report,) = {r["report_id"] for r in reports()}
    document = archive.get(f"/reports/{report}").json()
    assert document["meta"]["versionId"] == "2"
    assert FINDINGS in str(document)

    # What the hospital says of the patient is shown before what the images say.
    who = archive.json(f"/fhir/Patient?identifier={NUMBER}")
    assert "CANARYHL7" in str(who["entry"]), who
