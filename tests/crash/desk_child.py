"""What the doors of orders, devices and reports do, in processes that die where they are told to.

`python -m tests.crash.desk_child FOLDER INSTANCE` reads lines of JSON: {"fault": point, "asked": [[name, argument…]…]}.
Each line is done by a process of its own, forked from this one, where everything is imported already: it opens the
chain, sends what is left, arms the fault, then does what is asked one after the other. Behind it a line of JSON says
how it ended and what was answered before: {"status": -9, "told": [...]}. What is asked comes through no door: doors are
killed with a report, a correction and a person (test_papers_kill), a message (test_hl7_kill), instances
(test_gateway_kill).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra import faults
from infra.chain import ChainedLog
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.settings import Settings
from producers.critical import Criticals, Duty, ReadBack
from producers.orders import Orders, Told
from producers.reports import Reports, Writer
from producers.slips import Slips
from producers.steps import StepOrigin, Steps
from schemas.dicom_json import Dataset
from schemas.orders import Order, resource
from schemas.report_content import CRITICAL
from tests.unit.producers.test_report_document import document as report_document
from tests.unit.schemas.test_orders import WHOLE

SITE, ACTOR, CLINICIAN = "CAI-01", "person:clerk-1", "dr-1"
DRAIN_S = 30.0


class Desk:
    """All that is asked of one process."""

    def __init__(self, settings: Settings) -> None:
        objects, bucket = S3Objects(settings), settings.bucket_documents
        self.kafka = KafkaLog(settings)
        self.chain = ChainedLog.open(settings, "api", self.kafka, objects)
        self._orders = Orders(objects, self.chain, bucket=bucket, site=SITE, zone="Africa/Cairo")
        self._slips = Slips(objects, bucket)
        self._steps = Steps(objects, self.chain, bucket=bucket)
        self._reports = Reports(objects, self.chain, bucket, SITE, Duty(("dr-1", "dr-2"), 1))
        self._criticals = Criticals(objects, self.chain, bucket=bucket)

    def drain(self) -> None:
        """Until Kafka has all that was kept."""
        until = time.monotonic() + DRAIN_S
        while self.chain.backlog:
            assert time.monotonic() < until, "the chain is not drained"
            time.sleep(0.01)

    def place(self, id: str) -> Any:
        return _told(self._orders.place(_order(), actor=ACTOR, asked_id=id))

    def change(self, id: str) -> Any:
        return _told(self._orders.change(id, _order(reason="again"), 1, actor=ACTOR))

    def cancel(self, id: str) -> Any:
        return _told(self._orders.cancel(id, 2, actor=ACTOR, reason="not-needed"))

    def slip(self, id: str) -> Any:
        printed = self._slips.issue(id, ACTOR)
        return [printed.number, printed.pin]

    def begin(self, step: str, said: Dataset) -> Any:
        self._steps.begin(step, said, StepOrigin(SITE, "CT1"))
        return True

    def end(self, step: str, said: Dataset) -> Any:
        self._steps.change(step, said, StepOrigin(SITE, "CT1"))
        return True

    def report(self, id: str) -> Any:
        flagged = {"extension": [{"url": CRITICAL, "valueBoolean": True}]}
        told = self._reports.add(report_document(**flagged), id, Writer("person:r-1", may_sign=True))
        return [told.version, told.critical_id]

    def read_back(self, id: str) -> Any:
        kept = self._reports.kept(id, 1)
        assert kept is not None
        said = ReadBack(words="the tube is in the right bronchus", clinician=CLINICIAN)
        told = self._criticals.acknowledge(id, 1, kept.report, said, ACTOR, "", SITE)
        return [told.clinician, told.acknowledged]


def _order(**changes: Any) -> bytes:
    order: Order = replace(WHOLE, order_id="", accession="", study_uid="", placer="", site=SITE, **changes)
    return json.dumps(resource(order)).encode()


def _told(told: Told) -> Any:
    return [told.version, told.status, told.accession, told.study_uid]


def work(settings: Settings, fault: str, asked: list[list[Any]], answers: int) -> None:
    """One line, in a process of its own. `answers`: where they are written."""
    desk = Desk(settings)
    desk.drain()
    os.environ[faults.VARIABLE] = fault
    importlib.reload(faults)
    for name, *arguments in asked:
        told = getattr(desk, name)(*arguments)
        os.write(answers, json.dumps(told).encode() + b"\n")
    desk.drain()
    desk.chain.close(5.0)
    desk.kafka.close()


def main() -> None:
    """Until there are no more lines."""
    folder, instance = sys.argv[1:]
    settings = Settings.load(
        "api", {**os.environ, "SIJIL_INSTANCE": instance, "SIJIL_SPOOL_DIR": str(Path(folder) / "s")}
    )
    for line in sys.stdin:
        asked = json.loads(line)
        reads, writes = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                work(settings, asked["fault"], asked["asked"], writes)
            finally:  # what is raised is on stderr: a fork returns to nobody
                if (error := sys.exc_info())[0] is not None:
                    sys.excepthook(*error)
                os._exit(error[0] is not None)
        os.close(writes)
        with os.fdopen(reads, "rb") as answers:
            told = [json.loads(answer) for answer in answers]
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(json.dumps({"status": status, "told": told}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
