"""A requester of storage commitments: pynetdicom as SCU, and as the listener that gets the reports."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from pydicom import DataElement, Dataset, config
from pydicom.sequence import Sequence as Items
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_role

PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SUCCESS = 0x0000


def asked(transaction: str, sops: Sequence[str], sop_class: str = CT) -> Dataset:
    """The information of an N-ACTION."""
    found = Dataset()
    found[0x00081195] = DataElement(0x00081195, "UI", transaction, validation_mode=config.IGNORE)
    items = []
    for sop in sops:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop
        items.append(item)
    found.ReferencedSOPSequence = Items(items)
    return found


class Report:
    """An N-EVENT-REPORT as it came."""

    def __init__(self, event: Any) -> None:
        information = event.event_information
        self.event_type: int = event.event_type
        self.transaction = str(information.TransactionUID)
        self.retrieve_ae = str(information.get("RetrieveAETitle", ""))
        self.committed = [str(i.ReferencedSOPInstanceUID) for i in information.get("ReferencedSOPSequence", [])]
        self.failed = {
            str(i.ReferencedSOPInstanceUID): int(i.FailureReason) for i in information.get("FailedSOPSequence", [])
        }
        self.as_requestor: bool = event.assoc.is_requestor
        roles = event.assoc.requestor.role_selection.get(PUSH_MODEL)
        self.scp_proposed = bool(roles and roles.scp_role and not roles.scu_role)


class Modality:
    """A modality with a listener; as a context manager."""

    def __init__(self, title: str = "MODALITY1", answer: Callable[[], int] = lambda: SUCCESS) -> None:
        self.title, self._answer = title, answer
        self.reports: queue.Queue[Report] = queue.Queue()
        self._ae = AE(title)
        self._ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = 20
        handlers: Any = [(evt.EVT_N_EVENT_REPORT, self._event)]
        server = self._ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self._server = server
        self.port: int = self._server.server_address[1]

    def _event(self, event: Any) -> tuple[int, None]:
        self.reports.put(Report(event))
        return self._answer(), None

    def associate(self, port: int, *, role: bool = True) -> Association:
        """An association on which commitments may be asked for."""
        ae = AE(self.title)
        ae.add_requested_context(PUSH_MODEL)
        handlers: Any = [(evt.EVT_N_EVENT_REPORT, self._event)]
        items: Any = [build_role(PUSH_MODEL, scu_role=True)] if role else []
        assoc = ae.associate("127.0.0.1", port, ae_title="SIJIL", evt_handlers=handlers, ext_neg=items)
        assert assoc.is_established
        return assoc

    def ask(self, port: int, transaction: str, sops: Sequence[str], sop_class: str = CT) -> int:
        """One request on an association of its own; its status."""
        assoc = self.associate(port)
        status = self.action(assoc, asked(transaction, sops, sop_class))
        assoc.release()
        return status

    @staticmethod
    def action(assoc: Association, information: Dataset, action: int = 1, instance: str = INSTANCE) -> int:
        """An N-ACTION; the status of its response."""
        status, _ = assoc.send_n_action(information, action, PUSH_MODEL, instance)
        return int(status.Status)

    def report(self, within_s: float = 15.0) -> Report:
        """The next one."""
        return self.reports.get(timeout=within_s)

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()

    def __enter__(self) -> Modality:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
