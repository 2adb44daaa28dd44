"""SIGKILL of the HTTP door in each gap between the steps of a report, of a correction and of a person of the staff.

The client sends what was not answered again, under the same id. Then there is one document in S3 and one event in the
log, and the door's chain is whole. What is sent again after one kill is what the next process dies of, in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from infra import clock
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.settings import Settings
from producers.people import PUBLISHED
from schemas.envelope import decode
from schemas.events import OrderPlaced, PersonRegistered, ReportIssued, StudyCorrected
from tests.archive import sha256
from tests.crash.test_gateway_kill import Process
from tests.local_stack import LocalStack, superuser
from tests.unit.producers.test_people import practitioner
from tests.unit.producers.test_report_document import document

pytestmark = [pytest.mark.connected, pytest.mark.slow]

STUDY = "1.2.826.0.9"
FHIR = {"Content-Type": "application/fhir+json"}

Paper = ReportIssued | StudyCorrected | PersonRegistered | OrderPlaced
Send = Callable[[Process, str], int | None]
"""Status of the answer to the paper of this id, None when there was none."""


def send_report(process: Process, id: str) -> int | None:
    return answered(process, "/reports", content=document(), headers={**FHIR, "Report-Id": id})


def send_correction(process: Process, id: str) -> int | None:
    asked = {"id": id, "type": "correct", "attributes": {"StudyDescription": "CT neck"}}
    return answered(process, f"/studies/{study_of(id)}/corrections", json=asked)


def send_person(process: Process, id: str) -> int | None:
    return answered(process, f"/fhir/Practitioner/{id}", method="PUT", json=practitioner(id), headers=FHIR)


def study_of(id: str) -> str:
    """A correction's study: one for each."""
    return f"{STUDY}.{UUID(id).int}"


def answered(process: Process, path: str, method: str = "POST", **request: object) -> int | None:
    url = f"http://127.0.0.1:{process.port}{path}"
    try:
        return httpx.request(method, url, timeout=30, **request).status_code  # type: ignore[arg-type]
    except httpx.HTTPError:
        return None


def published(settings: Settings, topic: str, source: str) -> list[tuple[int, str, Paper]]:
    """(sequence, event id, event) of each record of a source; a repeated record must say the same.

    Other tests write to the topic too, also what is no event: the source's header is looked at first.
    """
    log = KafkaLog(superuser(settings))
    try:
        found: dict[int, tuple[int, str, Paper]] = {}
        for record in log.read(topic, {}, log.ends(topic)):
            if ("ce_source", source.encode()) in record.headers:
                envelope = decode(topic, record.key, record.headers, record.value)
                assert envelope.link is not None
                assert isinstance(envelope.event, Paper)
                one = (envelope.link.sequence, envelope.id, envelope.event)
                assert found.setdefault(one[0], one) == one
        return [found[sequence] for sequence in sorted(found)]
    finally:
        log.close()


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("send", "topic", "folder", "after_document"),
    [
        (send_report, "sijil.reports", lambda id: f"reports/{id}/", "reports.after-document"),
        (
            send_correction,
            "sijil.study.corrections",
            lambda id: f"corrections/{study_of(id)}/",
            "corrections.after-document",
        ),
        (send_person, "sijil.people", lambda id: f"people/by-id/{id}/", "people.after-document"),
    ],
    ids=["report", "correction", "person"],
)
def test_a_paper_and_its_door_killed(
    stack: LocalStack,
    tmp_path: Path,
    send: Send,
    topic: str,
    folder: Callable[[str], str],
    after_document: str,
) -> None:
    instance = f"{os.getpid()}-{time.time_ns()}"
    process = Process(stack, "api", tmp_path, instance)
    first, second = (str(UUID(str(clock.uuid7()))) for _ in range(2))
    try:
        # document in S3 → event kept → event sent
        for fault in (after_document, "chain.after-fsync"):
            process.start(fault)
            assert send(process, first) is None
            assert process.killed(), f"{fault} was never passed"
        # The event that was kept is sent at the start, and the client sends again; acknowledged → known to the chain
        process.start("chain.after-ack:2")
        assert send(process, first) == 200
        assert send(process, second) is None
        assert process.killed(), "chain.after-ack was never passed"
        process.start()
        assert send(process, second) == 200
        deadline = time.monotonic() + 60
        while not process.drained():
            assert time.monotonic() < deadline, "the chain is not drained"
            time.sleep(0.1)
    finally:
        process.end()
    records = published(process.settings, topic, f"/api/LOCAL/{instance}")
    # A record may be there twice, an event not.
    assert [sequence for sequence, _, _ in records] == [1, 2]
    objects = S3Objects(process.settings)
    for paper, (_, _, event) in zip((first, second), records, strict=True):
        keys = objects.list(process.settings.bucket_documents, folder(paper))
        (key,) = (key for key in keys if not key.endswith(PUBLISHED))
        assert key == event.document_key
        assert len(objects.versions(process.settings.bucket_documents, key)) == 1
        data = objects.get(process.settings.bucket_documents, key)
        assert (len(data), sha256(data)) == (event.document_size, event.document_sha256)
    assert records[0][1] != records[1][1]
