"""SIGKILL in each gap between the steps of an order, a slip, a device's step, a critical result, an instance report.

Whoever asked and was not answered asks again, until there is an answer. Then each fact is in the log once, each
document in S3 once, and the read models say so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra import clock
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.ports import Select
from infra.settings import Settings
from schemas.dicom_json import Dataset
from schemas.envelope import decode
from schemas.events import (
    CriticalAcknowledged,
    CriticalEscalated,
    CriticalRaised,
    Event,
    OrderCancelled,
    OrderChanged,
    OrderPlaced,
    ReportIssued,
    StepEnded,
    StepStarted,
    StudyExpected,
)
from schemas.identity import derived_id
from schemas.pack import InstanceLine, Manifest
from schemas.pin import matches
from schemas.slips import decode_slip, slip_key, slips_of
from schemas.steps import document_key
from streams.structured_report import BASIC_TEXT
from tests.crash.desk_child import CLINICIAN, SITE
from tests.crash.streams_child import STARTED, Streams, wait_for
from tests.local_stack import ROOT, LocalStack, superuser
from tests.unit.producers.dicom.test_mpps import begun, ended
from tests.unit.streams.samples import Pack
from tests.unit.streams.test_instance_reports import TREE, code

pytestmark = [pytest.mark.connected, pytest.mark.slow]

KEPT = ("chain.before-fsync", "chain.after-fsync", "chain.after-send", "chain.after-ack")
"""An event: asked for → kept → sent → in the log → known to be there. One that is kept passes none of them again."""
NUMBERS = ("2.25.1001", "CANARY-ACC-7")


class Desk:
    """The child, and what it is told."""

    def __init__(self, stack: LocalStack, folder: Path, instance: str) -> None:
        self.source = f"/api/LOCAL/{instance}"
        command = [sys.executable, "-m", "tests.crash.desk_child", str(folder), instance]
        pipe = subprocess.PIPE
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=stack.environment, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=ROOT
            )

    def ask(self, *asked: list[Any], fault: str = "") -> tuple[int, list[Any]]:
        """(how the process ended, what it answered before)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"fault": fault, "asked": asked}) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        return told["status"], told["told"]

    def killed(self, *asked: Any, at: tuple[str, ...]) -> Any:
        """What is answered at last, after a kill at each point."""
        for fault in at:
            assert self.ask([*asked], fault=fault) == (-signal.SIGKILL, []), f"{asked[0]} at {fault}"
        status, (told,) = self.ask([*asked])
        assert status == 0
        return told


@contextmanager
def opened(stack: LocalStack, folder: Path, instance: str) -> Iterator[Desk]:
    desk = Desk(stack, folder, instance)
    try:
        yield desk
    finally:
        desk.process.communicate(timeout=30)
        assert desk.process.returncode == 0


def published(settings: Settings, source: str) -> list[tuple[int, str, Event]]:
    """(sequence, id, event) of the records of a source in the topics that it writes; the same one twice is one."""
    log = KafkaLog(superuser(settings))
    try:
        found: dict[int, tuple[int, str, Event]] = {}
        for topic in ("sijil.orders", "sijil.study.arrivals", "sijil.reports"):
            for record in log.read(topic, {}, log.ends(topic)):
                if ("ce_source", source.encode()) in record.headers:
                    envelope = decode(topic, record.key, record.headers, record.value)
                    assert envelope.link is not None
                    one = (envelope.link.sequence, envelope.id, envelope.event)
                    assert found.setdefault(one[0], one) == one
        return [found[sequence] for sequence in sorted(found)]
    finally:
        log.close()


def of_study(said: Any, study: str) -> Dataset:
    """What a device says, of a study of this test's own."""
    text: str = said.to_json().replace(NUMBERS[0], study).replace(NUMBERS[1], study[-16:])
    found: Dataset = json.loads(text)
    return found


class Reporting(Pack):
    """A pack whose one instance is a structured report."""

    @property
    def manifest(self) -> Manifest:
        whole = super().manifest
        return Manifest(whole.pack, tuple(self._report(line) for line in whole.instances))

    @staticmethod
    def _report(line: InstanceLine) -> InstanceLine:
        header = msgspec.json.decode(line.header)
        header["0040A730"] = {"vr": "SQ", "Value": [item.to_json_dict() for item in TREE]}
        header["0040A043"] = {"vr": "SQ", "Value": [code("18748-4", "Report", "LN").to_json_dict()]}
        return msgspec.structs.replace(line, sop_class=BASIC_TEXT, header=msgspec.Raw(msgspec.json.encode(header)))


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nothing_doubled(stack: LocalStack, tmp_path: Path) -> None:
    instance = f"{os.getpid()}-{time.time_ns()}"
    report = str(clock.uuid7())
    step = f"2.25.{clock.uuid7().int}"
    streams = Streams(stack)
    objects, bucket = S3Objects(stack.settings("api")), streams.gateway.bucket_documents
    with opened(stack, tmp_path, instance) as desk:
        # Orders: accession number claimed → document in S3 → events → answer
        document = ("orders.after-accession", "orders.after-document")
        orders = [str(clock.uuid7()) for _ in KEPT]
        several = [desk.killed("place", id, at=(*document, at)) for id, at in zip(orders, KEPT, strict=True)]
        assert len({told[2] for told in several}) == len({told[3] for told in several}) == len(KEPT)
        order, placed = orders[0], several[0]
        changed = desk.killed("change", order, at=(*document, "chain.after-fsync"))
        cancelled = desk.killed("cancel", order, at=(*document, "chain.after-ack"))
        assert [placed[:2], changed[:2], cancelled[:2]] == [[1, "active"], [2, "active"], [3, "revoked"]]
        assert len({told[2] for told in (placed, changed, cancelled)}) == 1, "one accession number for good"
        study = placed[3]
        # A slip: hash in S3 → PIN told
        number, pin = desk.killed("slip", order, at=("slips.after-document",))
        assert number == len(list(objects.list(bucket, slips_of(order)))) == 2
        assert matches(pin, decode_slip(objects.get(bucket, slip_key(order, 2))).pin)
        # A device: document in S3 → event kept → answer
        said = "steps.after-document"
        desk.killed("begin", step, of_study(begun(), study), at=(said, "chain.before-fsync"))
        desk.killed("end", step, of_study(ended(), study), at=(said, "chain.after-fsync"))
        # A critical result: document in S3 → both events → answer; read back → document → event → answer
        version, critical = desk.killed("report", report, at=("reports.after-document", "chain.after-fsync"))
        assert version == 1
        clinician, _ = desk.killed("read_back", report, at=("critical.after-document", "chain.after-ack"))
        assert clinician == CLINICIAN
        # What was answered is answered the same again
        everything = [["place", order], ["change", order], ["cancel", order], ["report", report], ["read_back", report]]
        status, again = desk.ask(*everything)
        assert status == 0
        assert [a[0] for a in again[:3]] == [1, 2, 3]
        assert again[3] == [version, critical]
        late = str(clock.uuid7())  # one that nobody will read back: its time is over in a second
        assert desk.ask(["report", late])[0] == 0

    found = published(streams.gateway, desk.source)
    assert [sequence for sequence, _, _ in found] == list(range(1, len(found) + 1)), "the chain is whole"
    events: dict[str, Event] = {}
    for _, id, event in found:  # asked again after an answer it may be there twice, and then says the same
        assert events.setdefault(id, event) == event
    once = (OrderChanged, OrderCancelled, StepStarted, StepEnded, CriticalAcknowledged)
    often = {OrderPlaced: len(KEPT), StudyExpected: len(KEPT), ReportIssued: 2, CriticalRaised: 2}
    assert Counter(map(type, events.values())) == {**dict.fromkeys(once, 1), **often}
    for folder, versions in ((f"orders/{order}/", 3), (f"reports/{report}/", 1), (f"criticals/{report}/", 1)):
        keys = list(objects.list(bucket, folder))
        assert [len(objects.versions(bucket, key)) for key in keys] == [1] * versions
    assert [len(objects.versions(bucket, document_key(step, n))) for n in (1, 2)] == [1, 1]

    def rows(table: str, **where: Any) -> list[dict[str, Any]]:
        return streams.select(Select(table, where))

    def escalated() -> set[str]:
        topic = "sijil.reports"
        records = streams.kafka.read(topic, {}, streams.kafka.ends(topic))
        envelopes = [decode(topic, r.key, r.headers, r.value) for r in records]
        return {e.id for e in envelopes if isinstance(e.event, CriticalEscalated) and e.event.report_id == late}

    def levels() -> dict[str, int]:
        """Of results that wait: how often they went to the next contact."""
        found = [row for partition in range(6) for row in rows("criticals_open", reports_partition=partition)]
        return {r["report_id"]: r["level"] for r in found if r["report_id"] in (report, late) and r["contacts"]}

    # The worker passes on what nobody has read back: published → remembered
    assert streams.start("critical.published").wait(120) == -signal.SIGKILL
    sr = Reporting(STARTED % 10**9, study=f"1.2.80.{STARTED}", site=SITE, tar=b"x" * 2000)
    streams.publish(sr.put(streams.objects))  # type: ignore[arg-type]
    with streams.running():
        # The archiver makes a report of an instance: document in S3 → event
        assert streams.start("instance-reports.after-document", "archiver").wait(120) == -signal.SIGKILL
        made = derived_id("report", "dicom", f"{sr.study}.1")
        with streams.running("archiver"):
            wait_for(lambda: bool(rows("reports_by_study", study_uid=sr.study)))
        assert [(r["report_id"], r["version"]) for r in rows("reports_by_study", study_uid=sr.study)] == [(made, 1)]
        wait_for(lambda: [s["status"] for s in rows("steps_by_study", study_uid=study)] == ["completed"])
        wait_for(lambda: [r["version"] for r in rows("orders", order_id=order)] == [3, 2, 1])
        wait_for(lambda: [r["order_id"] for r in rows("orders_by_study", study_uid=study)] == [order])
        wait_for(lambda: levels() == {late: 1})
    assert len(escalated()) == 1
    (listed,) = rows("orders_by_accession", site=SITE, accession=placed[2])
    assert (listed["order_id"], listed["status"]) == (order, "revoked")
    streams.kafka.close()
