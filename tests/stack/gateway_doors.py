"""Both doors of a gateway in this process, on loopback ports of their own, over the ports in memory."""

from __future__ import annotations

import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from infra.ae_table import Ae
from infra.chain import ChainedLog
from infra.dicom_door import DicomDoor, Listener
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from producers.callers import Callers
from producers.dicom import scp
from producers.stow import app as stow
from schemas.envelope import decode
from schemas.events import Event, InstanceRejected, PackStored
from schemas.pack import Manifest, decode_manifest
from tests.packs import tar_of

LOOPBACK = [Ae("*", "127.0.0.0/8", 0)]


class Doors:
    """What a test may look at."""

    def __init__(
        self, settings: Settings, dicom_port: int, http_port: int, log: MemoryLog, objects: MemoryObjects
    ) -> None:
        self.settings, self.dicom_port, self.http_port = settings, dicom_port, http_port
        self.log, self.objects = log, objects
        self.dicom: DicomDoor
        self.listener: Listener
        self.http: HttpDoor

    @property
    def url(self) -> str:
        """Of the DICOMweb service."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def events(self) -> list[Event]:
        """All of study.arrivals."""
        topic = "sijil.study.arrivals"
        records = self.log.read(topic, {}, self.log.ends(topic))
        return [decode(topic, r.key, r.headers, r.value).event for r in records]

    def rejected(self) -> list[InstanceRejected]:
        """Those of instances refused, in their order (UUIDv7)."""
        found = [e for e in self.events() if isinstance(e, InstanceRejected)]
        return sorted(found, key=lambda e: e.rejection_id)

    def manifests(self) -> list[Manifest]:
        """Of every pack with an event."""
        packs = [e for e in self.events() if isinstance(e, PackStored)]
        return [decode_manifest(self.objects.get(e.bucket, e.manifest_key)) for e in packs]

    def members(self) -> list[tuple[str, bytes]]:
        """Name and Part 10 file of each member of every pack with an event, read by somebody else's tar."""
        found = []
        for e in self.events():
            if isinstance(e, PackStored):
                with tarfile.open(
                    fileobj=BytesIO(tar_of(e.pack_key, self.objects.get(e.bucket, e.pack_key)))
                ) as archive:
                    for member in archive.getmembers():
                        data = archive.extractfile(member)
                        assert data is not None
                        found.append((member.name.removesuffix(".dcm"), data.read()))
        return found

    def files(self) -> dict[str, bytes]:
        """The members by their names, for tests in which these differ."""
        return dict(self.members())

    def quarantined(self) -> dict[str, bytes]:
        """Rejection id → bytes."""
        return {p.stem: p.read_bytes() for p in self.settings.quarantine.iterdir()}

    def spool_files(self) -> list[Path]:
        """Bodies that are being received."""
        return [p for role in ("gateway", "api") for p in (self.settings.spool(role) / "incoming").iterdir()]

    def until(self, condition: Callable[[], bool], within_s: float = 10.0) -> None:
        """Wait for `condition`."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)


@contextmanager
def open_doors(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: list[Ae] | None = None,
    world: tuple[MemoryLog, MemoryObjects] | None = None,
    **changes: Any,
) -> Iterator[Doors]:
    """Both doors, until the block ends. `changes` are settings; `world` is there before and afterwards."""
    quick = {"pack_idle_s": 0.3, "pack_release_s": 0.1}
    settings = Settings(home=home, loopback_role="local", dicom_port=0, gateway_health_port=0, **{**quick, **changes})
    callers = Callers(home / "ae.json", lambda: LOOPBACK if table is None else table)
    monkeypatch.setattr(Callers, "open", lambda _: callers)
    log, objects = world or (MemoryLog(), MemoryObjects())
    chains = [
        ChainedLog(log, settings.chain(role), f"/{role}/LOCAL/1", backlog_max=1000, anchors=None)
        for role in ("gateway", "api")
    ]
    dicom = DicomDoor(settings, log=log, chain=chains[0], objects=objects)
    scp.register(dicom)
    listener = Listener(dicom)
    http = HttpDoor(settings, log=log, chain=chains[1], objects=objects)
    server = uvicorn.Server(
        uvicorn.Config(compose(http, [stow.register]), port=0, loop="uvloop", log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    for start in dicom.starts:
        start()
    listener.start()
    while not server.started:
        time.sleep(0.01)
    doors = Doors(settings, listener.port, server.servers[0].sockets[0].getsockname()[1], log, objects)
    doors.dicom, doors.listener, doors.http = dicom, listener, http
    try:
        yield doors
    finally:
        server.should_exit = True
        thread.join()
        listener.close(2)
        for stop in reversed(dicom.stops):
            stop()
        for chain in chains:
            chain.close(2)
