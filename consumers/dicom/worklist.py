"""Modality Worklist (PS3.4 Annex K): C-FIND of the orders of a device's own site.

What is found goes out in pieces, each after the access event that names it is durable (design, rule 7). An order leaves
the list when a device has completed it (MPPS), when its study is complete, and when a person ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from consumers.api.access import ALLOWED, refusal
from consumers.api.match import fits
from consumers.dicom import worklist_query
from consumers.dicom.find import (
    CANCELLED,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_UNSUPPORTED,
    PIECE,
    REFUSED,
    SUCCESS,
    finish,
    response,
    syntax_of,
)
from consumers.dicom.services import DicomRoom, who
from consumers.dicom.worklist_item import ON_THE_LIST, State, item, state
from consumers.dicom.worklist_query import MODALITY_WORKLIST, Asked, of_station, read
from infra import clock
from infra.dicom_exchange import Exchange
from infra.ports import Select
from infra.settings import Settings
from schemas.caller import ALL_SITES, Caller
from schemas.dicom_json import Dataset as Json
from schemas.roles import Permission

ACTION = "worklist"
QUERIES_MAX = 4
"""Queries of devices at once. Their turns are their own, so that nobody's long search keeps an examination waiting."""
ORDERS_MAX = 5000
"""Orders of its days that one query looks at."""

Row = dict[str, Any]
T = TypeVar("T")


def negotiate(abstract_syntax: str, offered: Sequence[str]) -> str | None:
    """The transfer syntax of identifiers of the worklist."""
    return syntax_of(offered) if abstract_syntax == MODALITY_WORKLIST else None


class Worklist:
    """Answers devices."""

    def __init__(self, room: DicomRoom, settings: Settings) -> None:
        self._room, self._home_site, self._zone = room, settings.site, ZoneInfo(settings.time_zone)
        self._turns = threading.BoundedSemaphore(QUERIES_MAX)

    def answer(self, exchange: Exchange) -> None:
        """All responses of one request."""
        finish(exchange, self._turns, self._answer)

    def _answer(self, exchange: Exchange) -> tuple[int, str]:
        """(final status, comment)."""
        asker, call, audit = who(exchange.peer), self._room.loop.call, self._room.audit
        if (reason := refusal(asker, Permission.ORDER_READ)) != ALLOWED:
            call(audit.denied(asker, ACTION, reason))
            return REFUSED, "not authorised"
        asked = read(exchange.data_set(exchange.request.Identifier), clock.now().astimezone(self._zone).date())
        pending = PENDING_UNSUPPORTED if asked.unsupported else PENDING
        orders, more = self._orders(asked, asker)
        station = asked.station_ae or exchange.peer.calling_ae
        recorded = False
        for piece in _batched(self._fitting(orders, asked), PIECE):
            shown = [(order["study_uid"], order["patient_key"]) for order, _ in piece]
            call(audit.search(asker, ACTION, asked.criteria, shown))
            recorded = True
            for _, found in piece:
                if exchange.cancelled() or exchange.gone():
                    return CANCELLED, ""
                answer = response(exchange, pending)
                answer.Identifier = exchange.encoded(worklist_query.written(asked.keys, of_station(found, station)))
                exchange.respond(answer)
        if not recorded:
            call(audit.search(asker, ACTION, asked.criteria, ()))
        return (OUT_OF_RESOURCES, "too many orders: narrow the dates") if more else (SUCCESS, "")

    def _orders(self, asked: Asked, asker: Caller) -> tuple[list[Row], bool]:
        """Those that may be on the list, earliest first, and whether there were more than are looked at."""
        sites = sorted(asker.sites - {ALL_SITES}) or [self._home_site]
        if asked.days:
            queries = [
                Select("orders_by_site_day", {"site": site, "day": day}, limit=ORDERS_MAX)
                for site in sites
                for day in asked.days
            ]
        else:
            where = {"accession": asked.accession}
            queries = [Select("orders_by_accession", {"site": site, **where}, limit=ORDERS_MAX) for site in sites]
        found = [row for rows in self._select(queries) for row in rows if row["status"] in ON_THE_LIST]
        found.sort(key=lambda row: (row["scheduled"] or row["day"], row["recorded"], row["order_id"]))
        return found[:ORDERS_MAX], len(found) > ORDERS_MAX

    def _fitting(self, orders: Sequence[Row], asked: Asked) -> Iterator[tuple[Row, Json]]:
        """Orders with their items. Where an order stands is looked up for those alone that fit else."""
        checks, free = asked.checks(), asked.without_status().checks()
        for chunk in _batched(orders, PIECE):
            likely = [row for row in chunk if fits(item(row, stands=State.SCHEDULED, zone=self._zone), free)]
            for row, stands in zip(likely, self._states(likely), strict=True):
                found = item(row, stands=stands, zone=self._zone)
                if stands is not State.DONE and fits(found, checks):
                    yield row, found

    def _states(self, orders: Sequence[Row]) -> list[State]:
        queries = []
        for order in orders:
            queries += [
                Select("steps_by_study", {"study_uid": order["study_uid"]}, ("status",)),
                Select("steps_by_accession", {"site": order["site"], "accession": order["accession"]}, ("status",)),
                Select("studies", {"study_uid": order["study_uid"]}, ("study_uid", "completed_revision")),
            ]
        answers = self._select(queries)
        found = []
        for n, order in enumerate(orders):
            by_study, by_accession, study = answers[3 * n : 3 * n + 3]
            found.append(state(order, [*by_study, *by_accession], study[0] if study else None))
        return found

    def _select(self, queries: Sequence[Select]) -> list[list[Row]]:
        return self._room.loop.call(self._room.room.views.tables.select_many(queries)) if queries else []


def _batched(found: Iterable[T], size: int) -> Iterator[list[T]]:
    """In lists of at most `size`."""
    rest = iter(found)
    while piece := list(islice(rest, size)):
        yield piece
