"""Orders and studies that find each other by accession number, whichever comes first, and those that must not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from infra.ports import Select, Stored
from schemas.events import OrderCancelled, OrderChanged, OrderPlaced, StudyCompleted, StudyExpected, StudyParted
from schemas.identity import derived_id
from schemas.orders import Order, resource
from streams.completeness import ORDER
from streams.joining import belongs
from tests.unit.schemas.test_orders import WHOLE
from tests.unit.streams.samples import DOCUMENTS, T0, Pack, run, stored
from tests.unit.streams.test_worker import QUIET_MS, Archive

SITE, STUDY = "CAIRO-1", "1.2.3"
HERS = replace(
    WHOLE, site=SITE, accession="A-1", patient_id="P-77", issuer=SITE, birth_date="19800101", sex="F",
    study_uid="2.25.9", requester="",
)  # fmt: skip
"""Of the patient of `samples.PERSON`."""


class Desk(Archive):
    """A worker to which orders and studies come."""

    def order(self, said: Order = HERS, offset: int = 1, kind: type[Any] = OrderPlaced, **more: Any) -> None:
        document = json.dumps(resource(said)).encode()
        key = f"orders/{said.order_id}/{offset}.json"
        digest = hashlib.sha256(document).hexdigest()
        self.objects.put(DOCUMENTS, key, document, sha256=digest)
        event = kind(
            order_id=said.order_id, version=offset, status=said.status, priority="routine", site=said.site,
            study_uid=said.study_uid, modality="CT", day="20250301", day_before="", actor="person:1",
            recorded="2025-03-01T07:00:00Z", bucket=DOCUMENTS, document_key=key, document_size=len(document),
            document_sha256=digest, **more,
        )  # fmt: skip
        run(self.worker.handle([stored(event, offset)]))
        assert not self.buried()

    def study(self, offset: int = 5, header: Mapping[str, str] | None = None) -> Stored:
        pack = Pack(offset, study=STUDY, site=SITE)
        record = stored(replace(pack, header={**pack.header, **(header or {})}).put(self.objects), offset)
        run(self.worker.handle([record]))
        return record

    def buried(self) -> list[str]:
        return [e.event.TYPE for e in self.emitted if e.event.TYPE.startswith("dead")]

    def expected(self) -> list[tuple[str, StudyExpected]]:
        return [(e.id, e.event) for e in self.emitted if isinstance(e.event, StudyExpected)]

    def follow(self) -> None:
        """What was told comes back by the log."""
        for n, (id, event) in enumerate(self.expected(), 100):
            run(self.worker.handle([stored(event, n, id=id)]))


@pytest.mark.parametrize("order_first", [True, False])
def test_whichever_comes_first_the_other_joins_it(order_first: bool) -> None:
    desk = Desk()
    if order_first:
        desk.order()
        assert desk.expected() == []
        desk.study()
    else:
        desk.study()
        assert desk.expected() == []
        desk.order()
    ((id, told),) = desk.expected()
    assert id == derived_id(StudyExpected.TYPE, HERS.order_id, STUDY, 1)
    assert (told.study_uid, told.order_id, told.basis, told.site) == (STUDY, HERS.order_id, "accession", SITE)
    desk.follow()
    (row,) = run(desk.tables.select(Select("orders_by_study", {"study_uid": STUDY})))
    assert (row["order_id"], row["basis"]) == (HERS.order_id, "accession")
    # Known is not told again: neither with a new version of the order nor with more images
    desk.order(replace(HERS, reason="again"), offset=2)
    desk.study(offset=7)
    assert len(desk.expected()) == 1


def test_a_crash_before_it_was_told_tells_it_again() -> None:
    desk = Desk()
    desk.order()
    record = desk.study()
    desk.emitted.clear()
    desk.restart()
    run(desk.worker.handle([record]))
    assert [event.study_uid for _, event in desk.expected()] == [STUDY]


def test_the_order_that_joined_is_the_basis_of_completeness() -> None:
    desk = Desk()
    desk.study()
    desk.order(replace(HERS, status="completed"))
    desk.follow()
    desk.end = 101
    run(desk.timers.tick(T0 + 2 * QUIET_MS))
    assert [e.event.basis for e in desk.emitted if isinstance(e.event, StudyCompleted)] == [ORDER]


@pytest.mark.parametrize(
    "header",
    [
        {"t00100020": "UNKNOWN", "t00100010": "Unknown", "t00100030": "", "t00100040": ""},
        {"t00100020": "EMERGENCY-3"},
    ],
    ids=["nobody yet", "a number for now"],
)
def test_an_emergency_is_joined(header: dict[str, str]) -> None:
    desk = Desk()
    desk.study(header=header)
    desk.order()
    assert len(desk.expected()) == 1


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        ({"t00080050": ""}, {}),
        ({"t00080050": "A-2"}, {}),
        ({"t00100020": "P-78", "t00100030": "19810101"}, {}),
        ({"t00100020": "P-78", "t00100040": "M"}, {}),
        ({"t00100020": "P-78", "t00100030": ""}, {}),
        ({"t00100020": "UNKNOWN", "t00100040": "M"}, {}),
        ({}, {"site": "ALX-1", "issuer": "ALX-1"}),
        ({}, {"study_uid": STUDY}),
    ],
    ids=[
        "no number",
        "another",
        "other birth date",
        "other sex",
        "not enough said",
        "unknown man",
        "other site",
        "is it",
    ],
)
def test_what_does_not_agree_is_not_joined(header: dict[str, str], changes: dict[str, Any]) -> None:
    for order_first in (True, False):
        desk = Desk()
        if order_first:
            desk.order(replace(HERS, **changes))
        desk.study(header=header)
        if not order_first:
            desk.order(replace(HERS, **changes))
        assert desk.expected() == []


def test_what_was_taken_back_joins_nothing() -> None:
    desk = Desk()
    desk.order()
    desk.order(replace(HERS, status="revoked"), offset=2, kind=OrderCancelled, reason="not-needed")
    desk.study()
    assert desk.expected() == []
    row = {"patient_key": "k", "patient_id": "1", "birth_date": "", "sex": "", "site": SITE, "sites": [SITE]}
    assert belongs(row, {**row, "status": "active"})
    assert not belongs(row, {**row, "status": "entered-in-error"})


OTHER = replace(HERS, accession="A-9")
"""The same order after its number was set right."""


def joined(desk: Desk) -> list[tuple[str, str]]:
    """(study, order) as the tables have them, the same from both sides."""
    found = [(r["study_uid"], r["order_id"]) for r in run(rows_of(desk, "orders_by_study"))]
    assert sorted(found) == sorted((r["study_uid"], r["order_id"]) for r in run(rows_of(desk, "studies_by_order")))
    return sorted(found)


async def rows_of(desk: Desk, table: str) -> list[dict[str, Any]]:
    return [row async for row in desk.tables.scan(table)]


def change(desk: Desk, said: Order, offset: int) -> None:
    desk.order(said, offset, OrderChanged, previous_key=f"orders/{said.order_id}/{offset - 1}.json")


def tell(desk: Desk) -> None:
    """What was told comes back by the log, as often as something new is told."""
    told: list[str] = []
    while new := [e for e in desk.emitted if isinstance(e.event, StudyExpected | StudyParted) and e.id not in told]:
        for emit in new:
            told.append(emit.id)
            run(desk.worker.handle([stored(emit.event, 100 + len(told), id=emit.id)]))


def partings(desk: Desk) -> list[StudyParted]:
    """Told twice under one id is told once."""
    return list({e.id: e.event for e in desk.emitted if isinstance(e.event, StudyParted)}.values())


def test_an_order_whose_number_changed_goes_over_to_the_other_study() -> None:
    desk = Desk()
    desk.order()
    desk.study()
    right = Pack(6, study="1.2.4", site=SITE)
    came = replace(right, header={**right.header, "t00080050": "A-9"}).put(desk.objects)
    run(desk.worker.handle([stored(came, 6)]))
    desk.follow()
    assert joined(desk) == [(STUDY, HERS.order_id)]
    change(desk, OTHER, 2)
    (event,) = partings(desk)
    assert (event.study_uid, event.order_id, event.version, event.site) == (STUDY, HERS.order_id, 2, SITE)
    (emit,) = [e for e in desk.emitted if e.event is event]
    assert emit.id == derived_id(StudyParted.TYPE, HERS.order_id, STUDY, 2)
    tell(desk)
    assert joined(desk) == [("1.2.4", HERS.order_id)]
    change(desk, replace(OTHER, reason="again"), 3)
    assert len(partings(desk)) == 1


@pytest.mark.parametrize("told_late", [False, True])
def test_parting_does_not_depend_on_what_comes_first(told_late: bool) -> None:
    """The order changes before, or after, it came back by the log that the study was expected."""
    desk = Desk()
    desk.study()
    desk.order()
    if not told_late:
        desk.follow()
    change(desk, OTHER, 2)
    assert len(partings(desk)) == (0 if told_late else 1)
    tell(desk)
    assert len(partings(desk)) == 1
    assert joined(desk) == []


def test_back_again_is_joined_again() -> None:
    desk = Desk()
    desk.study()
    desk.order()
    desk.follow()
    for version, said in ((2, OTHER), (3, HERS)):
        change(desk, said, version)
        for emit in desk.emitted:
            if isinstance(emit.event, StudyExpected | StudyParted):
                run(desk.worker.handle([stored(emit.event, 100 * version, id=emit.id)]))
        desk.emitted.clear()
    assert joined(desk) == [(STUDY, HERS.order_id)]


@pytest.mark.parametrize(
    ("said", "kind", "parts"),
    [
        (replace(HERS, accession=""), OrderChanged, True),
        (replace(HERS, patient_id="P-78", birth_date="19810101"), OrderChanged, True),
        (replace(HERS, reason="again"), OrderChanged, False),
        (replace(HERS, status="completed"), OrderChanged, False),
    ],
    ids=["no number", "somebody else", "no matter", "done"],
)
def test_what_parts(said: Order, kind: type[Any], parts: bool) -> None:
    desk = Desk()
    desk.study()
    desk.order()
    desk.follow()
    desk.order(said, offset=2, kind=kind)
    assert [e.study_uid for e in partings(desk)] == ([STUDY] if parts else [])
