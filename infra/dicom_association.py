"""Associations of the DICOM door: pynetdicom's, over `infra.dicom_reactor`, admitted and negotiated by the rooms."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from infra import clock, telemetry
from infra.dicom_exchange import Context, Exchange, Line, taken
from infra.dicom_reactor import LOOK_S, EventDul, WakingQueue
from infra.dicom_services import LOCAL_LIMIT_EXCEEDED, Peer, Services
from schemas.errors import Defect

log = telemetry.logger(__name__)

CONNECTIONS_EACH = 8
"""Connections at once, for each place for an association; more are closed as they come."""
SOCKET_S = 60
"""A peer that begins a PDU has so long for each next piece of it, and for taking what is sent to it."""


class EventAssociation(Association):
    """An acceptor's association; see the module."""

    def __init__(self, ae: Any, services: Services, certificate: str = "") -> None:
        self._certificate = certificate
        self.news = threading.Event()
        self._peer: Peer | None = None
        self.admitted = False
        """It has one of the listener's places."""
        super().__init__(ae, MODE_ACCEPTOR)
        self.upper = EventDul(self, services, self.peer, self.news)
        self.dul = self.upper
        self.acse = TableAcse(self, services, self.peer)
        self.line = Line(self)
        self._services = services
        self.dimse.msg_queue = WakingQueue(self.news.set)
        # Timeouts are kept by the provider that was replaced.
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout

    def peer(self) -> Peer:
        """Who called. Once the A-ASSOCIATE-RQ is there."""
        if self._peer is None:
            found = self._stated()
            self._peer = replace(found, caller=self._services.identify(found))
        return self._peer

    def _stated(self) -> Peer:
        primitive, address = self.requestor.primitive, self.requestor.address_info
        if primitive is None or address is None:
            raise Defect("an association without a requestor")
        calling, called = primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()
        return Peer(calling, called, address.address, self._certificate)

    def kill(self) -> None:
        """Kill the thread."""
        self.news.set()
        super().kill()

    def ending(self) -> bool:
        """Whether the peer has released, aborted or left."""
        # Whatever the upper layer has for its user now is about the end of the association.
        return self._kill or not self.dul.is_alive() or self.dul.peek_next_pdu() is not None

    def next_message(self, timeout_s: float) -> Any:
        """The next message of the peer while a request of its is being answered; None if there is none in time.

        Called by this association's thread. A notification's response is for `line.answered`.
        """
        deadline = clock.monotonic() + timeout_s
        while (left := deadline - clock.monotonic()) > 0 and not self.ending():
            item = taken(self.dimse.msg_queue, min(left, LOOK_S))
            if item is not None:
                return item[1]
        return None

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Requests that a room answers itself go there, all others pynetdicom's way."""
        if self.line.answered(msg):
            return
        handler = self._services.requests.get(type(msg))
        context = self._accepted_cx.get(context_id)
        if handler is None or context is None or not msg.is_valid_request:
            super()._serve_request(msg, context_id)
            return
        self.dimse.cancel_req = {}
        try:
            handler(Exchange(self, msg, Context.of(context)))
        except Exception as error:  # noqa: BLE001 (as pynetdicom: whatever it is, the association ends)
            log.error("dimse request failed", error=error)
            self.abort()

    def _run_reactor(self) -> None:
        """pynetdicom's loop, asleep while there is nothing to do."""
        self._is_paused = False
        while not self._kill:
            self.news.wait(LOOK_S)
            self.news.clear()
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            if self._look():
                self.kill()
                break
        self.line.end()

    def _look(self) -> bool:
        """Serve what has come; True when the association has ended."""
        while (item := self.dimse.get_msg(block=False))[1]:
            self._serve_request(item[1], item[0])
        if self.is_established and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released, self.is_established = True, False
            evt.trigger(self, evt.EVT_RELEASED, {})
            return True
        if self.acse.is_aborted():
            self.dul.receive_pdu(wait=False)
            self.is_aborted, self.is_established = True, False
            evt.trigger(self, evt.EVT_ABORTED, {})
            return True
        if self.dul.idle_timer_expired():
            self.abort()
            return True
        return not self.dul.is_alive()


class TableAcse(ACSE):
    """Association control that admits and negotiates by what the rooms say."""

    def __init__(self, assoc: Association, services: Services, peer: Callable[[], Peer]) -> None:
        super().__init__(assoc)
        self._services, self._peer = services, peer

    def _negotiate_as_acceptor(self) -> None:
        """Admit, choose contexts, then as pynetdicom."""
        request = cast(A_ASSOCIATE, self.requestor.primitive)
        rejection = self._services.admit(self._peer())
        server = self.assoc._server
        if rejection is None and isinstance(server, BoundedServer) and not server.take_place(self.assoc):
            rejection = LOCAL_LIMIT_EXCEEDED
        if rejection is not None:
            self.requestor.ae_title = request.calling_ae_title
            self.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            evt.trigger(self.assoc, evt.EVT_REJECTED, {})
            log.info("association rejected", ae_title=self._peer().calling_ae, reason=str(rejection))
            self.assoc.kill()
            return
        chosen, supported = self._choose(request.presentation_context_definition_list)
        for context in supported:
            # Both roles: pynetdicom then accepts the one that the peer has proposed, or the default ones.
            if self._services.both_roles(str(context.abstract_syntax)):
                context.scu_role = context.scp_role = True
        request.presentation_context_definition_list = chosen
        self.acceptor.supported_contexts = supported
        super()._negotiate_as_acceptor()

    def _choose(
        self, offered: Sequence[PresentationContext]
    ) -> tuple[list[PresentationContext], list[PresentationContext]]:
        """The contexts offered, each accepted one with its one transfer syntax, and what that makes us support.

        pynetdicom then finds exactly these: result 0 for an accepted context, 4 for one whose transfer syntaxes are all
        refused, 3 for an abstract syntax of which none is accepted.
        """
        chosen: list[PresentationContext] = []
        syntaxes: dict[str, list[str]] = {}
        for context in offered:
            syntax = self._services.negotiate(str(context.abstract_syntax), [str(t) for t in context.transfer_syntax])
            mine = copy(context)
            if syntax is not None:
                mine.transfer_syntax = [syntax]
                found = syntaxes.setdefault(str(context.abstract_syntax), [])
                if syntax not in found:
                    found.append(syntax)
            chosen.append(mine)
        supported = []
        for abstract_syntax, accepted in syntaxes.items():
            supported.append(build_context(abstract_syntax, [*accepted]))
        return chosen, supported


class BoundedServer(ThreadedAssociationServer):
    """A listener that bounds its associations, and apart from them its connections.

    A connection on which no association is asked for holds a thread until it is dropped, and none of the places: such
    ones, by mistake or ill will, keep nobody out.
    """

    request_queue_size = 256
    """Connections that the kernel holds until they are accepted: a burst is not made to wait for its own retries."""
    associations_max = 1
    _starting = 0
    """Connections taken and not associations yet."""

    def take_place(self, association: Any) -> bool:
        """Whether there was a place for it."""
        with _places:
            if sum(getattr(a, "admitted", False) for a in self.active_associations) >= self.associations_max:
                return False
            association.admitted = True
            return True

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is served at all."""
        with _places:
            if len(self.active_associations) + self._starting >= CONNECTIONS_EACH * self.associations_max:
                return False
            self._starting += 1
            return True

    def give(self, connection: socket.socket, caller: tuple[str, int], certificate: str) -> bool:
        """Serve a connection that came by TLS; False if it is one too many."""
        if not self.verify_request(connection, caller):
            return False
        self.certificates[connection] = certificate
        self.process_request(connection, caller)
        return True

    @cached_property
    def certificates(self) -> dict[socket.socket, str]:
        """Connection → SHA-256 of its caller's certificate, until it is an association."""
        return {}

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make the association of a connection, which then counts as one."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with _places:
                self._starting -= 1


_places = threading.Lock()


class Handler(RequestHandler):
    """Makes our association of a connection."""

    services: Services

    def _create_association(self) -> EventAssociation:
        request: socket.socket = self.request
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel's own timeouts: with Python's, every read would be a poll and a read.
        deadline = struct.pack("ll", SOCKET_S, 0)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, deadline)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, deadline)
        server = cast(BoundedServer, self.server)
        assoc = EventAssociation(self.ae, self.services, server.certificates.pop(request, ""))
        assoc._server = server
        assoc.name = f"AcceptorThread@{self.remote.address}:{self.remote.port}"
        assoc.set_socket(AssociationSocket(assoc, client_socket=request))
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = self.server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.requestor.address_info = self.remote
        handlers: dict[Any, Any] = self.server._handlers
        for event, bound in handlers.items():
            if event.is_intervention and bound:
                assoc.bind(event, *bound)
            elif isinstance(event, evt.NotificationEvent):
                for handler, arguments in bound:
                    assoc.bind(event, handler, arguments)
        return assoc


def handler_class(services: Services) -> type[Handler]:
    """The request handler of a server with these services."""
    return type("BoundHandler", (Handler,), {"services": services})
