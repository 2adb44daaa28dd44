"""Workstations that find and fetch by DIMSE again and again, each under a title of its own, and count what came."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from infra.settings import Settings

MODELS = {
    "query": StudyRootQueryRetrieveInformationModelFind,
    "dicom-get": StudyRootQueryRetrieveInformationModelGet,
    "dicom-move": StudyRootQueryRetrieveInformationModelMove,
}
"""What the access events call it → how it is asked."""
PENDING, SUCCESS = (0xFF00, 0xFF01), 0x0000
TIMEOUT_S = 20


class Receiver:
    """Where a C-MOVE sends to; how many instances of each study have come."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.came: Counter[str] = Counter()
        ae = AE(title)
        ae.add_supported_context(CTImageStorage)
        ae.network_timeout = TIMEOUT_S
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        handlers: list[Any] = [(evt.EVT_C_STORE, self._stored)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        self._server = server

    def _stored(self, event: evt.Event) -> int:
        self.came[str(event.dataset.StudyInstanceUID)] += 1
        return SUCCESS

    def stop(self) -> None:
        """Takes no more."""
        self._server.shutdown()
        self._server.server_close()
        for association in self._server.active_associations:  # of a sender that was killed
            association.abort()
            association.join(TIMEOUT_S)


@contextmanager
def receiving(title: str) -> Iterator[Receiver]:
    """One that is there for a while."""
    receiver = Receiver(title)
    try:
        yield receiver
    finally:
        receiver.stop()


@dataclass
class Workstation:
    """Asks by one service. `answered` and `cut` count by study what brought patient data, whole or in part."""

    action: str
    title: str
    settings: Settings
    studies: list[str]
    stop: threading.Event
    receiver: Receiver | None = None
    answered: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    """Requests that nothing came of: refused, or whose answer was perhaps on its way."""
    failure: BaseException | None = None
    _came: int = 0

    def run(self) -> None:
        """Until told to stop."""
        chance = random.Random(self.title)  # noqa: S311 - no secret
        try:
            while not self.stop.is_set():
                self._ask(chance.choice(self.studies))
        except BaseException as e:  # noqa: BLE001 - told by the test's own thread
            self.failure = e

    def _ask(self, study: str) -> None:
        ae = AE(self.title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
        model = MODELS[self.action]
        ae.add_requested_context(model)
        more: dict[str, Any] = {}
        if self.action == "dicom-get":
            ae.add_requested_context(CTImageStorage)
            more = {
                "ext_neg": [build_role(CTImageStorage, scp_role=True)],
                "evt_handlers": [(evt.EVT_C_STORE, self._stored)],
            }
        where = self.settings.dicom_host, self.settings.dicom_port
        association = ae.associate(*where, ae_title=self.settings.ae_title, **more)
        if not association.is_established:  # nobody was there to ask
            time.sleep(0.05)
            return
        self._came = 0
        before = self.receiver.came[study] if self.receiver else 0
        wanted = Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study
        status: int | None = None
        try:
            for told, found in self._sent(association, wanted, model):
                status = told.get("Status")
                self._came += self.action == "query" and status in PENDING and found is not None
        finally:
            association.abort() if status is None else association.release()
        came = self._came + (self.receiver.came[study] - before if self.receiver else 0)
        if status == SUCCESS and came:
            self.answered[study] += 1
        elif came:
            self.cut[study] += 1
        else:
            self.unanswered += 1

    def _sent(self, association: Any, wanted: Dataset, model: Any) -> Iterator[tuple[Dataset, Dataset | None]]:
        match self.action:
            case "query":
                found: Iterator[tuple[Dataset, Dataset | None]] = association.send_c_find(wanted, model)
            case "dicom-get":
                found = association.send_c_get(wanted, model)
            case _:
                assert self.receiver is not None
                found = association.send_c_move(wanted, self.receiver.title, model)
        return found

    def _stored(self, event: evt.Event) -> int:
        self._came += 1
        return SUCCESS
