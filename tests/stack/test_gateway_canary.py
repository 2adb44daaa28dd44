"""Nothing of a patient leaves a gateway but in packs and manifests: not in logs, metrics or events."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest

from infra import telemetry
from tests.stack.gateway_doors import open_doors
from tests.stack.raw_scu import RawScu
from tests.unit.producers.samples import dataset, file

CANARIES = (b"CANARY", b"OSTRICH")


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What a process that is set up as ours are would log, at its most talkative."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    telemetry.setup("gateway", "DEBUG", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO) -> None:
    with open_doors(tmp_path, monkeypatch) as doors:
        single = {"Content-Type": "application/dicom"}
        bodies = (
            file("1.2.1"),
            file("1.2.2", pixels=bytes(500))[:-50],  # cut
            file("1.2.3", study="OSTRICH"),  # a UID that is none
            b"OSTRICH" * 100,
        )
        for data in bodies:
            httpx.post(doors.url + "/studies", content=data, headers=single)
        httpx.post(doors.url + "/studies/OSTRICH?name=OSTRICH", content=file("1.2.4"), headers=single)
        with RawScu(doors.dicom_port) as scu:
            assert scu.store("1.2.5", dataset("1.2.5")) == 0
            assert scu.store("1.2.6", dataset("1.2.7")) != 0
            scu.release()
        doors.until(lambda: len(doors.rejected()) == 4 and len(doors.members()) == 2)
        events = b"".join(
            (r.value or b"") + b"".join(v for _, v in r.headers)
            for r in doors.log.read("sijil.study.arrivals", {}, doors.log.ends("sijil.study.arrivals"))
        )
        assert any(b"CANARY" in data for _, data in doors.members())  # the canaries were there to be found
    assert "instance refused" in logged.getvalue()
    for place in (logged.getvalue().encode(), generate_latest(), events):
        for canary in CANARIES:
            assert canary not in place
