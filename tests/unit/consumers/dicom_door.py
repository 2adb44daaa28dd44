"""The DICOM door, its answering half alone, over an archive in memory and on a port of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import psutil

from consumers.api.views import Views
from consumers.dicom import app, finders, services
from consumers.dicom.services import DicomRoom
from infra import ae_table
from infra.ae_table import Ae
from infra.chain import ChainedLog
from infra.dicom_door import DicomDoor, Listener
from infra.dicom_services import Peer
from producers.dicom.contexts import accept, is_storage
from schemas.caller import Caller
from tests.archive import dcmtk
from tests.unit.consumers.archive import DECODERS, MemoryArchive

LOOPBACK = Ae(ae_table.ANY, "127.0.0.0/8", 0, role="any")
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


@dataclass(frozen=True)
class OpenDoor:
    """What a test may look at."""

    port: int
    room: DicomRoom
    archive: MemoryArchive

    def run(self, program: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A DCMTK program that calls this door."""
        command = [dcmtk(program), "-v", "-aec", "SIJIL", *arguments, "127.0.0.1", str(self.port)]
        return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=timeout_s, check=False)


@contextmanager
def open_door(
    archive: MemoryArchive, entries: Sequence[Ae] = (), callers: Sequence[Ae] = (LOOPBACK,), **changes: Any
) -> Iterator[OpenDoor]:
    """The door until the block ends. `entries` of the AE table; `callers`: who may call; `changes` are settings."""
    settings = replace(archive.settings, dicom_port=0, **changes)
    door = DicomDoor(settings, log=archive.log, chain=cast(ChainedLog, archive.journal), objects=archive.objects)
    for entry in entries:
        asyncio.run(ae_table.add(archive.tables, entry))

    def caller(peer: Peer) -> Caller | None:
        row = ae_table.find_caller(callers, peer.calling_ae, peer.address)
        return ae_table.caller(row, peer.calling_ae, peer.address, settings.site) if row else None

    door.identify = caller
    room = services.made(door, Views(lambda: archive.tables), DECODERS)
    app.add(door, room)
    finders.add(door, room)
    door.contexts.append(accept)  # C-GET stores on contexts that the other half accepts
    door.both_roles.append(is_storage)
    listener = Listener(door)
    for start in door.starts:
        start()
    listener.start()
    deadline = time.monotonic() + 60
    while room.room.views.reachable is not True:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield OpenDoor(listener.port, room, archive)
    finally:
        listener.close(2)
        for stop in reversed(door.stops):
            stop()


@contextmanager
def storescp(folder: Path, *options: str, port: int) -> Iterator[Path]:
    """DCMTK's storescp at a port: the folder it writes to."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [dcmtk("storescp"), "+uf", "+B", "-od", str(folder), *options, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 60
        while not any(c.status == psutil.CONN_LISTEN for c in psutil.Process(process.pid).net_connections("tcp")):
            assert process.poll() is None
            assert time.monotonic() < deadline, "storescp does not listen"
            time.sleep(0.02)
        yield folder
    finally:
        process.terminate()
        process.wait(60)
