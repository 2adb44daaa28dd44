"""Orders as the log says them: all versions, and in every list where the order is now and nowhere else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import msgspec
import pytest

from infra.memory import MemoryObjects, MemoryTables
from infra.ports import Row, Select
from schemas.errors import Invalid
from schemas.events import Event, OrderCancelled, OrderChanged, OrderPlaced, StudyExpected
from schemas.identity import NATIONAL_ISSUER, patient_key
from schemas.orders import Order, resource
from schemas.tables import Write
from streams.dispatch import project
from streams.material import Material
from streams.projections.orders import OrderMaterial
from tests.unit.schemas.test_orders import WHOLE
from tests.unit.streams.samples import KEYS, SECRET, fact, run

ID = WHOLE.order_id
SAID: dict[str, Any] = {
    "order_id": ID,
    "priority": "routine",
    "site": "CAI-01",
    "study_uid": "2.25.7",
    "modality": "CT",
    "actor": "person:1",
    "recorded": "2026-11-23T08:00:00Z",
    "bucket": "sijil-documents",
    "document_size": 1,
    "document_sha256": "a" * 64,
}
MOTHERS = replace(WHOLE, patient_id="27001010112343", requester="dr-8", accession="261123000002")
"""The first clerk had entered somebody else."""


def story() -> list[tuple[Event, OrderMaterial]]:
    placed = OrderPlaced(
        **SAID, version=1, status="active", day="20261123", day_before="", document_key=f"orders/{ID}/1.json"
    )
    changed = OrderChanged(
        **SAID, version=2, status="active", day="20261124", day_before="20261123", document_key=f"orders/{ID}/2.json"
    )
    back = OrderCancelled(
        **SAID,
        version=3,
        status="revoked",
        reason="patient-away",
        day="20261124",
        day_before="20261124",
        document_key=f"orders/{ID}/3.json",
    )
    return [
        (placed, OrderMaterial(MOTHERS)),
        (changed, OrderMaterial(WHOLE, MOTHERS)),
        (back, OrderMaterial(replace(WHOLE, status="revoked"), WHOLE)),
    ]


def writes(n: int) -> list[Write]:
    event, material = story()[n]
    return project(fact(event, n + 1), material, KEYS)


def key_of(order: Order) -> str:
    found = patient_key(
        SECRET, patient_id=order.patient_id, issuer="CAI-01", birth_date=order.birth_date, sex=order.sex, study_uid="x"
    )
    return found.value


def after(order: Sequence[int]) -> MemoryTables:
    tables = MemoryTables()
    for n in order:
        run(tables.apply(writes(n)))
    return tables


def rows(tables: MemoryTables, table: str, **key: Any) -> list[Row]:
    return run(tables.select(Select(table, key)))


def test_an_order_is_where_it_is_now_and_nowhere_else() -> None:
    tables = after((0,))
    (row,) = rows(tables, "orders_by_site_day", site="CAI-01", day="20261123")
    listed = rows(tables, "patients_by_phone", phone=WHOLE.phone)
    assert [r["patient_key"] for r in listed] == [key_of(MOTHERS)]
    assert (row["order_id"], row["accession"], row["patient_name"]) == (ID, MOTHERS.accession, WHOLE.patient_name)
    assert (row["scheduled"], row["status"], row["version"]) == ("", "active", 1)
    tables = after((0, 1, 2))
    assert [r["version"] for r in rows(tables, "orders", order_id=ID)] == [3, 2, 1]
    assert not rows(tables, "orders_by_site_day", site="CAI-01", day="20261123")
    assert not rows(tables, "orders_by_accession", site="CAI-01", accession=MOTHERS.accession)
    assert not rows(tables, "orders_by_referrer", requester="dr-8")
    assert not rows(tables, "orders_by_patient", patient_key=key_of(MOTHERS))
    listed = rows(tables, "patients_by_phone", phone=WHOLE.phone)
    assert [(r["patient_key"], r["stamp"]) for r in listed] == [(key_of(WHOLE), 3 * 1024)]
    for table, key in (
        ("orders_by_site_day", {"site": "CAI-01", "day": "20261124"}),
        ("orders_by_accession", {"site": "CAI-01", "accession": WHOLE.accession}),
        ("orders_by_referrer", {"requester": "dr-9"}),
        ("orders_by_patient", {"patient_key": key_of(WHOLE)}),
    ):
        (row,) = rows(tables, table, **key)
        assert (row["order_id"], row["status"], row["version"]) == (ID, "revoked", 3)


def test_any_order_and_twice_gives_the_same() -> None:
    def dump(tables: MemoryTables) -> list[list[Row]]:
        return [
            rows(tables, "orders", order_id=ID),
            rows(tables, "orders_by_site_day", site="CAI-01", day="20261123"),
            rows(tables, "orders_by_site_day", site="CAI-01", day="20261124"),
            rows(tables, "orders_by_patient", patient_key=key_of(MOTHERS)),
            rows(tables, "orders_by_patient", patient_key=key_of(WHOLE)),
        ]

    expected = dump(after((0, 1, 2)))
    for order in permutations(range(3)):
        assert dump(after(order + order)) == expected


def test_whose_it_is_follows_the_rules_of_studies() -> None:
    event, _ = story()[0]

    def key(order: Order) -> str:
        found = project(fact(event, 1), OrderMaterial(order), KEYS)
        return next(str(w.key["patient_key"]) for w in found if w.table == "orders_by_patient")

    agrees = replace(WHOLE, sex="F", patient_id="29001011234567")
    national = patient_key(
        SECRET, patient_id=agrees.patient_id, issuer="X", birth_date="19900101", sex="F", study_uid="x"
    )
    assert key(agrees) == national.value
    child = replace(agrees, birth_date="20200101", issuer=NATIONAL_ISSUER)
    assert key(child) != national.value, "a mother's ID for her child does not open the mother's file"
    assert key(child) == key(replace(child, issuer="CAI-01"))


def test_a_document_of_another_order_goes_to_the_dead_letters() -> None:
    event, _ = story()[0]
    with pytest.raises(Invalid, match="not that of its event"):
        project(fact(event, 1), OrderMaterial(replace(WHOLE, study_uid="2.25.8")), KEYS)


def test_a_study_knows_its_order() -> None:
    said = {"study_uid": "2.25.7", "site": "CAI-01", "recorded": "2026-11-23T08:00:00Z"}
    tables = MemoryTables()
    run(tables.apply(project(fact(StudyExpected(**said, basis="order", order_id=ID), 1))))
    (row,) = rows(tables, "orders_by_study", study_uid="2.25.7")
    assert (row["order_id"], row["basis"], row["site"]) == (ID, "order", "CAI-01")
    assert project(fact(StudyExpected(**said, basis="mpps"), 2)) == []


def test_both_documents_are_fetched_and_the_new_one_is_checked() -> None:
    objects = MemoryObjects()
    digests = []
    for n, order in enumerate((MOTHERS, WHOLE), 1):
        data = json.dumps(resource(order)).encode()
        digests.append(hashlib.sha256(data).hexdigest())
        objects.put("sijil-documents", f"orders/{ID}/{n}.json", data, sha256=digests[-1])
    changed, material = story()[1]
    right = msgspec.structs.replace(changed, document_sha256=digests[1], previous_key=f"orders/{ID}/1.json")
    wrong = msgspec.structs.replace(right, document_sha256=digests[0])
    gone = msgspec.structs.replace(right, previous_key=f"orders/{ID}/9.json")
    fetcher = Material(objects, documents="sijil-documents", missing_s=0)
    try:
        found = run(fetcher.wanted([right, wrong, gone]))
    finally:
        fetcher.close()
    assert found[0] == material
    assert [f.reason for f in found[1:]] == ["object-checksum", "order-missing"]
