"""The access trail on the real servers: who read what is there for everyone to see, and nothing left before it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from infra.kafka import KafkaLog
from infra.settings import Settings
from schemas.envelope import decode
from schemas.events import AccessGranted, AccessUsed
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack

pytestmark = pytest.mark.connected

CANARY = "Zzcanary"


def accesses(settings: Settings) -> list[AccessGranted | AccessUsed]:
    """The whole topic."""
    log = KafkaLog(settings)
    try:
        ends = log.ends("sijil.accesses")
        stored = list(log.read("sijil.accesses", {}, ends))
    finally:
        log.close()
    events = [decode("sijil.accesses", s.key, s.headers, s.value).event for s in stored]
    return [e for e in events if isinstance(e, AccessGranted | AccessUsed)]


@pytest.fixture
def study(archive: Archive, tmp_path: Path) -> str:
    seed = time.time_ns() // 1000 % 10**9
    (instances,) = make_ct(tmp_path, studies=1, slices=3, seed=seed, rows=32)
    assert archive.stow([i.path.read_bytes() for i in instances]).status_code == 200
    uid: str = instances[0].study
    wait_until(lambda: archive.instance_count(uid) == 3, 60, "the study is queryable")
    return uid


def test_every_read_is_on_the_log_before_its_answer(archive: Archive, whole: LocalStack, study: str) -> None:
    settings = whole.settings("operator")
    for path in (f"/dicom-web/studies/{study}/metadata", f"/dicom-web/studies/{study}", f"/studies/{study}"):
        answer = archive.get(path, "*/*")
        assert answer.status_code == 200
        known = {e.access_id: e for e in accesses(settings)}
        event = known[answer.headers["Sijil-Access-Id"]]
        assert event.study_uid == study


def test_the_trail_names_reads_searches_and_refusals(archive: Archive, study: str) -> None:
    searched = archive.get(f"/dicom-web/studies?StudyInstanceUID={study}").headers["Sijil-Access-Id"]
    read = archive.get(f"/dicom-web/studies/{study}", "*/*").headers["Sijil-Access-Id"]
    refused = archive.get(f"/dicom-web/studies/{study}", "*/*", **{"Sijil-Purpose-Of-Use": "HMARKT"})
    assert refused.status_code == 403

    def listed() -> bool:
        rows = {r["access_id"]: r for r in archive.json(f"/studies/{study}/accesses")["accesses"]}
        return (
            {searched, read, refused.headers["Sijil-Access-Id"]} <= set(rows)
            and rows[read]["action"] == "retrieve"
            and rows[refused.headers["Sijil-Access-Id"]]["outcome"] == "denied"
        )

    wait_until(listed, 30, "all three are in the study's list")
    key = archive.json(f"/studies/{study}")["patient_key"]
    rows = archive.json(f"/patients/{key}/accesses")["accesses"]
    assert {searched, read} <= {r["access_id"] for r in rows}
    refused_id = refused.headers["Sijil-Access-Id"]
    wait_until(lambda: _in_every_list(archive, key, study, {searched, read}, refused_id), 30, "and in every list")


def _in_every_list(archive: Archive, key: str, study: str, granted: set[str], refused: str) -> bool:
    """By pages on the real tables, in plain words, and as AuditEvents."""

    def pages(path: str, most: int) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for _ in range(most):
            page = archive.json(path)
            for row in page["accesses"]:
                assert found.setdefault(row["access_id"] + row.get("study_uid", ""), row) is row, "each once"
            path = page.get("next", "")
            if not path:
                break
        return {row["access_id"]: row for row in found.values()}

    assert granted <= set(pages(f"/patients/{key}/accesses?limit=1", 20))
    assert granted | {refused} <= set(pages(f"/studies/{study}/accesses?limit=2", 20))
    denied = pages("/accesses?outcome=denied&limit=100", 5)
    assert (denied[refused]["study_uid"], denied[refused]["address"]) == (study, "127.0.0.1")
    mine = pages("/accesses?actor=http:127.0.0.1&limit=500", 20)
    assert granted | {refused} <= set(mine)
    words = archive.json(f"/patients/{key}/accesses?lang=ar")["accesses"][-1]["words"]
    assert words["who"] == "مستخدم داخل المنشأة"
    bundle = archive.json(f"/fhir/AuditEvent?patient={key}&date=ge2026-01-01")
    assert granted <= {e["resource"]["id"] for e in bundle["entry"]}
    one = archive.json(f"/fhir/AuditEvent/{refused}")
    assert (one["id"], one["outcome"]) == (refused, "4")
    hour = "".join(c for c in one["recorded"] if c.isdigit())[:10]
    assert refused in pages(f"/accesses?hour={hour}&limit=1000", 20)
    return True


def test_a_window_is_closed_with_its_count_also_when_the_api_stops(
    archive: Archive, whole: LocalStack, study: str
) -> None:
    answers = [archive.get(f"/dicom-web/studies/{study}", "*/*") for _ in range(3)]
    ids = {a.headers["Sijil-Access-Id"] for a in answers}
    assert len(ids) == 1
    pid = archive.parts()["api"].pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: archive.parts()["api"].pid not in (None, pid), 60, "the api is started again")
    archive.wait_ready()
    used = [e for e in accesses(whole.settings("operator")) if isinstance(e, AccessUsed) and e.access_id in ids]
    assert [(u.uses, u.bytes) for u in used] == [(3, sum(len(a.content) for a in answers))]


def test_what_was_searched_for_is_nowhere_on_the_log_or_in_the_logs(archive: Archive, whole: LocalStack) -> None:
    for query in (f"PatientName={CANARY}*", f"PatientID={CANARY}", f"AccessionNumber={CANARY}", f"{CANARY}=1"):
        archive.get(f"/dicom-web/studies?{query}")
    log = KafkaLog(whole.settings("operator"))
    try:
        for stored in log.read("sijil.accesses", {}, log.ends("sijil.accesses")):
            assert CANARY.encode() not in (stored.value or b"")
    finally:
        log.close()
    for file in (whole.home / "logs").iterdir():
        assert CANARY.encode() not in file.read_bytes(), file.name
    assert CANARY not in archive.get("/metrics", "*/*").text
