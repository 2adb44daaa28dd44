"""SIGKILL of the HL7 door in each gap between a message and its acknowledgement: sent again, it is one order, once."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from infra.mllp import MllpClient
from infra.objects import S3Objects
from producers.hl7.order import order_id_of
from schemas.errors import Transient
from schemas.events import OrderPlaced
from schemas.hl7 import parse
from tests.crash.test_gateway_kill import Process
from tests.crash.test_papers_kill import published
from tests.local_stack import LocalStack
from tests.unit.producers.hl7.test_orders import orm

pytestmark = [pytest.mark.connected, pytest.mark.slow]

POINTS = (
    "hl7.after-message",  # message in S3 → what it says
    "orders.after-document",  # document in S3 → event
    "chain.after-fsync",  # event kept → event sent
    "hl7.before-answer",  # everything noted → acknowledgement
)


def answer(process: Process, message: str) -> str:
    """MSA-1; empty when none came."""

    async def send() -> str:
        async with MllpClient("127.0.0.1", process.port, timeout_s=30) as client:
            return parse((await client.send(message.encode())).decode("ascii")).first("MSA").text(1)

    try:
        return asyncio.run(send())
    except Transient:
        return ""


@pytest.mark.timeout(200)
def test_a_message_and_its_door_killed(stack: LocalStack, tmp_path: Path) -> None:
    instance = f"{os.getpid()}-{time.time_ns()}"
    process = Process(stack, "hl7", tmp_path, instance)
    number = f"K{time.time_ns() % 10**12}"
    message = orm(message=number).replace("PL7", number)
    try:
        for fault in POINTS:
            process.start(fault)
            assert answer(process, message) == ""
            assert process.killed(), f"{fault} was never passed"
        process.start()
        assert answer(process, message) == "AA"
        assert answer(process, message) == "AA"
    finally:
        process.end()
    events = published(process.settings, "sijil.orders", f"/hl7/LOCAL/{instance}")
    # A record may be there twice, an event not.
    (placed,) = {id: event for _, id, event in events}.values()
    assert isinstance(placed, OrderPlaced)
    assert placed.order_id == order_id_of("LOCAL", number)
    objects = S3Objects(process.settings)
    assert list(objects.list(process.settings.bucket_documents, f"orders/{placed.order_id}/")) == [placed.document_key]
