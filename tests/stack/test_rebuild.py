"""A rebuild gives the same tables, cell by cell and write time by write time, and can take over without a gap."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from infra.cassandra import CassandraTables
from infra.ports import Row
from infra.settings import Settings
from schemas.tables import TABLES, VIEWS_KEYSPACE
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack

pytestmark = [pytest.mark.connected, pytest.mark.slow]

REPORT = {
    "resourceType": "DiagnosticReport",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4"}]},
    "conclusion": "No acute finding.",
}


async def contents(settings: Settings, keyspace: str) -> dict[str, list[Row]]:
    """Every row of every table with its write times, in an order of its own."""
    tables = CassandraTables.connect(settings, keyspace)
    try:
        found = {}
        for table in TABLES:
            rows = [row async for row in tables.scan(table.name, writetime=True)]
            found[table.name] = sorted(rows, key=lambda row: [str(row[c]) for c in table.primary_key])
        return found
    finally:
        tables.close()


def differences(one: dict[str, list[Row]], other: dict[str, list[Row]]) -> list[str]:
    """Where two sets of tables differ; values are left out."""
    found = []
    for name, rows in one.items():
        if len(rows) != len(other[name]):
            found.append(f"{name}: {len(rows)} rows against {len(other[name])}")
            continue
        for a, b in zip(rows, other[name], strict=True):
            found += [f"{name}.{c}" for c in a.keys() | b.keys() if a.get(c) != b.get(c)]
    return found


def positions(found: dict[str, list[Row]]) -> Any:
    """How far the projections of a set of tables are."""
    return [(r["topic"], r["partition"], r["next_offset"]) for r in found["projection_positions"]]


def test_rebuilt_tables_are_the_same_to_the_write_time(archive: Archive, whole: LocalStack, tmp_path: Path) -> None:
    studies = make_ct(tmp_path, studies=3, slices=4, seed=81, rows=16)
    for study in studies:
        assert archive.stow([i.path.read_bytes() for i in study]).status_code == 200
    assert archive.stow([studies[0][0].path.read_bytes(), b"not DICOM"]).status_code == 202
    for study in studies:
        wait_until(lambda uid=study[0].study: archive.instance_count(uid) == 4, 30, "queryable")  # type: ignore[misc]
    uid = studies[0][0].study
    report = {**REPORT, "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}]}
    answer = archive.post_json("/reports", report)
    assert answer.status_code == 201, answer.text
    wait_until(lambda: archive.json(f"/studies/{uid}")["state"] == "complete", 30, "complete")

    settings = whole.settings("operator")
    for attempt in range(5):  # until nothing was written in between, such as the end of an access window
        keyspace = f"{VIEWS_KEYSPACE}_t{attempt}{int(time.time()) % 100000}"
        if attempt == 0:  # what a killed one has left changes nothing
            words = ("rebuild", "--no-switch", "--to-keyspace", keyspace)
            assert whole.sijil(*words, changed={"SIJIL_FAULT": "rebuild.batch:2"}).returncode == -9
        done = whole.sijil("rebuild", "--no-switch", "--to-keyspace", keyspace)
        assert done.returncode == 0, done.stderr
        live = asyncio.run(contents(settings, VIEWS_KEYSPACE))
        rebuilt = asyncio.run(contents(settings, keyspace))
        if positions(live) == positions(rebuilt):
            break
        time.sleep(2)
    assert positions(live) == positions(rebuilt)
    assert differences(live, rebuilt) == []
    assert all(live[name] for name in ("studies", "instances", "packs", "patients", "reports", "accesses_by_study"))


def test_a_rebuild_takes_over_without_a_gap_after_the_patient_secret_was_replaced(
    archive: Archive, whole: LocalStack, tmp_path: Path
) -> None:
    seed = time.time_ns() // 1000 % 10**9
    (before,) = make_ct(tmp_path / "before", studies=1, slices=3, seed=seed, rows=16)
    (after,) = make_ct(tmp_path / "after", studies=1, slices=3, seed=seed + 1, rows=16)  # of the same patient
    assert archive.stow([i.path.read_bytes() for i in before]).status_code == 200
    wait_until(lambda: archive.instance_count(before[0].study) == 3, 30, "queryable")
    patient = archive.json(f"/studies/{before[0].study}")["patient_key"]

    first, worker = whole.settings("worker").patient_secret, archive.parts()["worker"].pid
    assert whole.sijil("secrets", "rotate", "patient").returncode == 0
    # Other tests have decided of files whose numbers never came with anything.
    done = whole.sijil("retire-patient-secret", "--leave", "1000")
    assert done.returncode == 0, done.stderr
    assert first not in (whole.home / "secrets/worker.env").read_text() + (whole.home / "secrets/hl7.env").read_text()
    wait_until(lambda: archive.parts()["worker"].pid not in (None, worker), 60, "the worker begins again")
    refused = whole.sijil("worker", changed={"SIJIL_PATIENT_SECRET": first})
    assert refused.returncode == 1
    assert "is not the secret of this archive" in refused.stdout + refused.stderr

    worker = archive.parts()["worker"].pid
    done = whole.sijil("rebuild")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[1])["sijil.study.arrivals"]
    wait_until(lambda: archive.parts()["worker"].pid not in (None, worker), 60, "the worker goes over")
    archive.wait_ready()
    assert archive.stow([i.path.read_bytes() for i in after]).status_code == 200
    wait_until(lambda: archive.instance_count(after[0].study) == 3, 60, "the new tables are fed")
    assert archive.instance_count(before[0].study) == 3
    found = {archive.json(f"/studies/{s[0].study}")["patient_key"] for s in (before, after)}
    assert found == {patient}, "rebuilt or new, under another secret"
