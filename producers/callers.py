"""Who may call by DICOM: the AE table, read again now and then, kept in a file for a start with Cassandra away."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from infra import ae_table, telemetry
from infra.ae_table import Ae
from infra.cassandra import CassandraTables
from infra.dicom_services import Peer
from infra.settings import Settings
from schemas.caller import Caller
from schemas.errors import SijilError
from schemas.tables import STATE_KEYSPACE

log = telemetry.logger(__name__)

READ_S = 15.0
"""How often the table is read: a new AE may call so soon after `sijil ae add`."""

Read = Callable[[], list[Ae]]

_decoder = msgspec.json.Decoder(list[Ae])


class Callers:
    """The AE table as it was last known. Thread-safe."""

    def __init__(self, file: Path, read: Read) -> None:
        """`read` asks Cassandra: raises Transient while it is away."""
        self._file, self._read = file, read
        self._table = _remembered(file)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ae-table", daemon=True)

    @classmethod
    def open(cls, settings: Settings) -> Callers:
        """The table of this installation."""

        connected: list[CassandraTables] = []

        def read() -> list[Ae]:
            if not connected:
                connected.append(CassandraTables.connect(settings, STATE_KEYSPACE))
            return asyncio.run(ae_table.read(connected[0]))

        return cls(settings.home / "data" / "ae_titles.json", read)

    def start(self) -> None:
        """Read once before the door opens, then now and then."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()

    def find(self, ae_title: str, address: str, certificate: str = "") -> Ae | None:
        """The entry under which `ae_title` may call from that address with that certificate."""
        return ae_table.find_caller(self._table, ae_title, address, certificate)

    def speaks_for(self, home_site: str, peer: Peer) -> Caller | None:
        """For whom a peer speaks; None if it may not call."""
        ae = self.find(peer.calling_ae, peer.address, peer.certificate)
        return ae_table.caller(ae, peer.calling_ae, peer.address, home_site) if ae else None

    def entry(self, ae_title: str) -> Ae | None:
        """The row of a title itself: where to send to."""
        return next((ae for ae in self._table if ae.ae_title == ae_title.strip(" ")), None)

    def refresh(self) -> None:
        """Read the table, and remember it if it is another."""
        try:
            table = self._read()
        except SijilError as error:
            log.warning("ae table not read, the last one known is used", reason=type(error).__name__)
            return
        if table != self._table:
            self._table = table
            _remember(self._file, table)

    def _watch(self) -> None:
        while not self._stop.wait(READ_S):
            self.refresh()


def _remembered(file: Path) -> list[Ae]:
    try:
        return _decoder.decode(file.read_bytes())
    except FileNotFoundError:
        return []
    except msgspec.DecodeError:
        log.warning("the remembered ae table cannot be read")
        return []


def _remember(file: Path, table: list[Ae]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(table))
    os.replace(temporary, file)
