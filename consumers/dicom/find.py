"""C-FIND (PS3.4 §C.4.1): Patient Root and Study Root, by the planner and the matching of QIDO-RS.

A query runs on its association's thread and on the loop of `consumers.dicom.services`; a bounded number at once, so
that storing is not kept from its turn. What is found goes out in pieces, each after the access event that names it is
durable (design, rule 7).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pynetdicom.dimse_primitives import C_FIND

from consumers.api import dicomjson
from consumers.api.access import ALLOWED, refusal
from consumers.api.patient_totals import totals
from consumers.api.planner import plan
from consumers.api.qido import Kind
from consumers.api.scope import Within
from consumers.api.search import Hit
from consumers.api.walk import Deadline
from consumers.dicom.identifier import PATIENT_ROOT, STUDY_ROOT, Asked, Depth, Extended, read, written
from consumers.dicom.services import DicomRoom, who
from infra import telemetry
from infra.dicom_exchange import Exchange
from schemas.dicom_json import Dataset as Json
from schemas.errors import Invalid, SijilError, Transient
from schemas.roles import Permission

log = telemetry.logger(__name__)

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
MODELS = (PATIENT_ROOT, STUDY_ROOT)
QUERIES_MAX = 8
"""Queries at once; others wait."""
WAIT_S = 20.0
DEADLINE_S = 60.0
"""Longest that a query looks."""
PIECE = 100
"""Answers that one access event names."""

# PS3.4 Table C.4-1.
SUCCESS, CANCELLED = 0x0000, 0xFE00
PENDING, PENDING_UNSUPPORTED = 0xFF00, 0xFF01
OUT_OF_RESOURCES, IDENTIFIER_WRONG, UNABLE, REFUSED = 0xA700, 0xA900, 0xC000, 0x0124

STATUSES = telemetry.Counter("sijil_c_find_responses", "Final C-FIND responses by status", ["status"])


def negotiate(abstract_syntax: str, offered: Sequence[str]) -> str | None:
    """The transfer syntax of identifiers of a query/retrieve model."""
    return syntax_of(offered) if abstract_syntax in MODELS else None


def syntax_of(offered: Sequence[str]) -> str | None:
    """Explicit before Implicit VR Little Endian: it keeps the value representations."""
    return next((s for s in (EXPLICIT_LE, IMPLICIT_LE) if s in offered), None)


def extended(event: Any) -> Mapping[Any, bytes]:
    """What of the extended negotiation is agreed to (PS3.7 §D.3.3.5, PS3.4 §C.5.1)."""
    return {uid: Extended.answer(info) for uid, info in event.app_info.items() if str(uid) in MODELS}


class Finder:
    """Answers C-FIND requests."""

    def __init__(self, room: DicomRoom, ae_title: str) -> None:
        self._room, self._ae_title = room, ae_title
        self._turns = threading.BoundedSemaphore(QUERIES_MAX)

    def answer(self, exchange: Exchange) -> None:
        """All responses of one request."""
        finish(exchange, self._turns, self._answer)

    def _answer(self, exchange: Exchange) -> tuple[int, str]:
        """(final status, comment)."""
        asker = who(exchange.peer)
        if (reason := refusal(asker, Permission.STUDY_SEARCH)) != ALLOWED:
            self._room.loop.call(self._room.audit.denied(asker, "query", reason))
            return REFUSED, "not authorised"
        sop_class = exchange.context.abstract_syntax
        asked = read(exchange.data_set(exchange.request.Identifier), sop_class, Extended.of(exchange.extended))
        pending = PENDING_UNSUPPORTED if asked.unsupported else PENDING
        deadline = Deadline(DEADLINE_S)
        criteria = {
            c.attribute.keyword: ("-".join(c.values),) if c.kind is Kind.RANGE else c.values
            for c in asked.query.conditions
        }
        room, audit, call = self._room.room, self._room.audit, self._room.loop.call
        recorded = False
        reach = call(room.scopes.reach(asker, Permission.STUDY_SEARCH))
        for hits in self._pieces(asked, deadline, exchange, Within(reach, room.scopes)):
            extra: Mapping[str, Json] = {}
            if asked.totals and reach.whole:  # a count tells of studies beyond a reach
                keys = [h.study["patient_key"] or "" for h in hits]
                extra = call(totals(room.views.tables, filter(None, keys), deadline))
            shown = [(h.study["study_uid"], h.study["patient_key"] or "") for h in hits]
            call(audit.search(asker, "query", criteria, shown))
            recorded = True
            for hit in hits:
                if exchange.cancelled() or exchange.gone():
                    return CANCELLED, ""
                found = _found(hit, asked) | extra.get(hit.study["patient_key"] or "", {})
                answer = response(exchange, pending)
                answer.Identifier = exchange.encoded(written(asked, found, self._ae_title))
                exchange.respond(answer)
        if exchange.cancelled():
            return CANCELLED, ""
        if not recorded:
            call(audit.search(asker, "query", criteria, ()))
        return (OUT_OF_RESOURCES, "stopped at its deadline: narrow it") if deadline.passed else (SUCCESS, "")

    def _pieces(self, asked: Asked, deadline: Deadline, exchange: Exchange, within: Within) -> Iterator[list[Hit]]:
        """What is found, in pieces; of patients each once."""
        searcher = self._room.room.views.searcher
        chunks = searcher.each(asked.query, plan(asked.query), deadline=deadline, within=within)
        patients: set[str] = set()
        waiting: list[Hit] = []
        for hits in self._room.loop.iterate(chunks):
            if exchange.cancelled() or exchange.gone():
                return
            for hit in hits:
                if asked.depth is Depth.PATIENT:
                    key = hit.study["patient_key"] or hit.study["study_uid"]
                    if key in patients:
                        continue
                    patients.add(key)
                waiting.append(hit)
            while len(waiting) >= PIECE:
                yield waiting[:PIECE]
                del waiting[:PIECE]
        if waiting:
            yield waiting


def _found(hit: Hit, asked: Asked) -> Json:
    """All that is known at the level that was asked about, and above."""
    found = dicomjson.study(hit.study, asked.query)
    return found | (hit.series or {}) | (hit.instance or {})


def finish(exchange: Exchange, turns: threading.Semaphore, work: Callable[[Exchange], tuple[int, str]]) -> None:
    """Do `work`, which sends what is found, when its turn has come; send the final response."""
    status, comment = UNABLE, ""
    try:
        if turns.acquire(timeout=WAIT_S):
            try:
                status, comment = work(exchange)
            finally:
                turns.release()
        else:
            status, comment = OUT_OF_RESOURCES, "too many queries at once"
    except Invalid as error:
        status, comment = IDENTIFIER_WRONG, error.reason
    except Transient as error:
        log.warning("c-find refused for now", reason=type(error).__name__)
        status, comment = OUT_OF_RESOURCES, "a part of the archive is away"
    except SijilError as error:
        log.error("c-find failed", error=error)
        status, comment = UNABLE, "a fault of the archive's own"
    STATUSES.labels(f"{status:04X}").inc()
    exchange.respond(response(exchange, status, comment))


def response(exchange: Exchange, status: int, comment: str = "") -> Any:
    """A C-FIND response; a pending one still lacks its identifier."""
    answer: Any = C_FIND()
    answer.AffectedSOPClassUID = exchange.request.AffectedSOPClassUID
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:64]
    return answer
