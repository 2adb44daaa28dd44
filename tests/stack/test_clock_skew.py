"""A gateway whose clock is a year off: nothing is lost, nothing is in a wrong order, and the study is complete.

Its own DICOM door on the session's archive, with a spool and a chain of its own. Only its clock is wrong: order is the
log's, and Kafka's time is the broker's.
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from infra import clock
from tests.archive import Archive, wait_until
from tests.crash.test_gateway_kill import Process
from tests.local_stack import LocalStack
from tests.stack.raw_scu import RawScu
from tests.unit.producers.samples import dataset

pytestmark = [pytest.mark.connected, pytest.mark.slow]

SKEWED = """
import sys, time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + {seconds}
time.time_ns = lambda: real_ns() + {seconds} * 10**9
from infra.cli import main
main()
"""
YEAR_S = 366 * 86400
MARGIN = timedelta(minutes=5)


def send(port: int, study: str, number: int) -> None:
    with RawScu(port) as scu:
        assert scu.store(f"{study}.1.{number}", dataset(f"{study}.1.{number}", study=study, series=f"{study}.1")) == 0
        scu.release()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("seconds", [YEAR_S, -YEAR_S], ids=["ahead", "behind"])
def test_a_gateway_a_year_off(whole: LocalStack, archive: Archive, tmp_path: Path, seconds: int) -> None:
    began = clock.now()
    instance = f"{os.getpid()}-{time.time_ns()}"
    study = f"1.2.826.0.1.3680043.10.99.{instance.replace('-', '.')}"
    skewed = Process(whole, "gateway", tmp_path, instance)
    skewed.program = ("-c", SKEWED.format(seconds=seconds))
    try:
        skewed.start()
        for number, port in enumerate((skewed.port, archive.settings.dicom_port, skewed.port), 1):
            send(port, study, number)
            wait_until(partial(has, archive, study, number), 40, f"{number} are searchable, whoever brought them")
        wait_until(skewed.drained, 40, "drained")
    finally:
        skewed.end()
    # Complete once all three are there, by the log's time and not by any sender's.
    wait_until(lambda: archive.json(f"/studies/{study}")["state"] == "complete", 40, "complete")
    changes = changes_of(archive, study)
    assert [kind for kind, _ in changes].count("study.arrived") == 3
    assert changes[-1][0] == "study.completed"
    assert [moment for _, moment in changes] == sorted(moment for _, moment in changes)
    for _, moment in changes:
        assert began - MARGIN < moment < clock.now() + MARGIN, "the broker's time"
    headers = archive.json(f"/dicom-web/studies/{study}/metadata")
    assert [h["00080018"]["Value"][0] for h in headers] == [f"{study}.1.{n}" for n in (1, 2, 3)], "the log's order"
    wait_until(lambda: "read-metadata" in str(archive.json(f"/studies/{study}/accesses")), 20, "the look is on record")


def has(archive: Archive, study: str, count: int) -> bool:
    return archive.instance_count(study) == count


def changes_of(archive: Archive, study: str) -> list[tuple[str, datetime]]:
    """(type, time) of all that the feed tells of a study, in its order."""
    since, found = "", list[tuple[str, datetime]]()
    while True:
        page = archive.json(f"/changes?limit=1000&since={since}")
        found += [(c["type"], datetime.fromisoformat(c["time"])) for c in page["changes"] if study in c["study_uids"]]
        since = page["next"]
        if not page["more"]:
            return found
