"""How the result of a storage commitment reaches the application entity that asked (PS3.4 §J.3.3).

On an association on which it has asked and that is still open, else on a new one to the address in the AE table, where
this archive proposes the SCP's role by role selection. An AE without an address is reported to when it next asks.
"""

from __future__ import annotations

import ipaddress
import threading
from concurrent.futures import TimeoutError as FutureTimeout

from infra import ae_table, telemetry
from infra.ae_table import Ae
from infra.dicom_command import event_report_command
from infra.dicom_exchange import Context, Gone, Line, encoded
from infra.dicom_scu import Outgoing, Proposed, Refused, Waits
from infra.tls import Client
from producers.callers import Callers
from producers.commitment.transaction import PUSH_MODEL, PUSH_MODEL_INSTANCE, Outcome, Transaction, information_of
from schemas.errors import Transient

log = telemetry.logger(__name__)

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SAME_ASSOCIATION_S = 30.0
"""How long the response to a report on an open association is waited for."""
AGAIN = frozenset({0x0110, 0x0210, 0x0213})
"""Statuses after which a report is tried again: processing failure, duplicate invocation, resource limitation."""
PROPOSED = Proposed(PUSH_MODEL, (EXPLICIT_LE, IMPLICIT_LE), as_scp=True)


class NoAddress(Transient):
    """The AE table does not say where the requester listens."""


class Delivery:
    """Reports results. Thread-safe."""

    def __init__(self, callers: Callers, ae_title: str, waits: Waits | None = None, tls: Client | None = None) -> None:
        self._callers, self._ae_title, self._waits, self._tls = callers, ae_title, waits or Waits(), tls
        self._lock = threading.Lock()
        self._lines: dict[str, list[tuple[Line, Context]]] = {}

    def asked_on(self, ae_title: str, line: Line, context: Context) -> None:
        """An AE has asked on this association."""
        with self._lock:
            lines = [pair for pair in self._lines.get(ae_title, []) if pair[0].is_open and pair[0] is not line]
            self._lines[ae_title] = [*lines, (line, context)]

    def report(self, key: str, transaction: Transaction, outcome: Outcome) -> bool:
        """Whether the requester has taken the result. Raises Transient."""
        information = information_of(transaction, outcome, self._ae_title)
        for line, context in self._open(transaction.ae_title):
            try:
                future = line.report(context, PUSH_MODEL, PUSH_MODEL_INSTANCE, outcome.event_type, information)
                return _taken(key, future.result(SAME_ASSOCIATION_S))
            except (Gone, OSError, FutureTimeout):
                continue  # it has ended meanwhile: a new association
        peer = self._peer(transaction)
        host = _host(peer, transaction.address)
        with Outgoing(peer, self._ae_title, self._waits, host=host, tls=self._tls) as association:
            association.associate([PROPOSED])
            if not association.contexts:
                raise Refused("the presentation context is not accepted")
            context = association.contexts[0]
            message_id = association.next_id()
            command = event_report_command(message_id, PUSH_MODEL, PUSH_MODEL_INSTANCE, outcome.event_type)
            status = association.ask(context, message_id, command, [encoded(information, context.transfer_syntax)])
        return _taken(key, status)

    def _open(self, ae_title: str) -> list[tuple[Line, Context]]:
        with self._lock:
            lines = [pair for pair in self._lines.get(ae_title, []) if pair[0].is_open]
            if lines:
                self._lines[ae_title] = lines
            else:
                self._lines.pop(ae_title, None)
            return lines[::-1]

    def _peer(self, transaction: Transaction) -> Ae:
        entry = self._callers.entry(transaction.ae_title)
        if entry is None or not entry.port:
            raise NoAddress("no address in the AE table")
        return entry


def _host(entry: Ae, called_from: str) -> str:
    """Where an AE listens: its host; where that is a network, the address it called from."""
    try:
        network = ipaddress.ip_network(entry.host, strict=False)
    except ValueError:
        return entry.host
    if network.num_addresses == 1:
        return str(network.network_address)
    if ae_table.find_caller([entry], entry.ae_title, called_from) is None:
        raise NoAddress("the AE table gives a network, and the request came from elsewhere")
    return called_from


def _taken(key: str, status: int) -> bool:
    """Whether a response ends the matter: a requester that refuses a report for good will not take it tomorrow."""
    if status in AGAIN:
        raise Transient(f"status {status:04X}")
    if status:
        log.warning("storage commitment report was answered with a failure", key=key, status=f"{status:04X}")
    return True
