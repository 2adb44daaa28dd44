"""What waits for a report: the same rows in whatever order topics come, and why a study waits again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from infra.memory import MemoryObjects, MemoryTables
from infra.ports import Select
from schemas.events import OrderChanged, OrderPlaced, ReportIssued
from schemas.tables import Write
from streams.dispatch import project as project_alone
from streams.pack_rows import PackRow
from streams.projections import reports
from streams.projections.orders import OrderMaterial
from streams.projections.studies import project, summarise
from streams.to_read import ToRead, listed
from tests.unit.schemas.test_orders import WHOLE
from tests.unit.streams.samples import KEYS, T0, Pack, dump, fact, run
from tests.unit.streams.test_orders import SAID

T = TypeVar("T")
FIRST = Pack(0, (("1", "1", "x"),))
LATER = Pack(1, (("1", "2", "y"),))
AGAIN = Pack(2, (("1", "2", "y"),))
PAPER = Pack(3, (("9", "3", "z"),), series={"t00080060": "SR"})
ISSUED_MS = T0 + 10_000


def arrivals(packs: Sequence[Pack], objects: MemoryObjects) -> list[list[Write]]:
    """Writes of each pack after the ones before it; the second came after the report."""
    rows: list[PackRow] = []
    found: list[list[Write]] = []
    for n, pack in enumerate(packs):
        came = fact(pack.put(objects), n + 1, at_ms=T0 if n == 0 else ISSUED_MS + 1000 * n)
        made = project(came, pack.manifest, KEYS)
        rows.append(made.row)
        found.append([*made.writes, *summarise(0, rows, came.offset)])
    return found


def report(version: int, status: str, at_ms: int) -> list[Write]:
    event = ReportIssued(
        report_id="00000000-0000-4000-8000-000000000001",
        version=version,
        status=status,
        study_uids=["1.2.3"],
        site="CAIRO-1",
        issued=f"2025-03-01T09:00:0{version}Z",
        bucket="sijil-documents",
        document_key="k",
        document_size=1,
        document_sha256="0" * 64,
    )
    return reports.issued(fact(event, version, at_ms=at_ms), event)


def orders() -> list[list[Write]]:
    """An urgent order under the study's number, which then has another one: it was a mistake."""
    said = SAID | {"site": "CAIRO-1", "study_uid": "1.2.3", "priority": "stat"}
    mine = replace(WHOLE, site="CAIRO-1", study_uid="1.2.3", accession="A-1", priority="stat")
    placed = OrderPlaced(
        **said, version=1, status="active", day="20250301", day_before="", document_key=f"orders/{SAID['order_id']}/1"
    )
    moved = OrderChanged(
        **said, version=2, status="active", day="20250301", day_before="20250301",
        document_key=f"orders/{SAID['order_id']}/2",
    )  # fmt: skip
    return [
        project_alone(fact(placed, 1), OrderMaterial(mine), KEYS),
        project_alone(fact(moved, 2), OrderMaterial(replace(mine, accession="A-2"), mine), KEYS),
    ]


def after(batches: Sequence[list[Write]]) -> MemoryTables:
    tables = MemoryTables()
    for batch in batches:
        run(tables.apply(batch))
        run(ToRead(tables).look(batch))
    return tables


def waits(tables: MemoryTables, modality: str = "") -> list[tuple[int, str]]:
    where = {"site": "CAIRO-1", "modality": modality, "month": "202503"}
    return [(r["rank"], r["why"]) for r in run(tables.select(Select("reading_waiting", where)))]


def interleaved(a: Sequence[T], b: Sequence[T]) -> Iterator[list[T]]:
    """Every order of two sequences that keeps each one's own."""
    if not a or not b:
        yield [*a, *b]
        return
    yield from ([a[0], *rest] for rest in interleaved(a[1:], b))
    yield from ([b[0], *rest] for rest in interleaved(a, b[1:]))


def test_why_a_study_waits() -> None:
    first, later, again, paper = arrivals([FIRST, LATER, AGAIN, PAPER], MemoryObjects())
    final, taken = report(1, "final", ISSUED_MS), report(2, "entered-in-error", ISSUED_MS + 9000)
    assert waits(after([first])) == waits(after([first]), "CT") == [(3, "")]
    assert waits(after([first, report(1, "preliminary", ISSUED_MS)])) == [(3, "")], "nobody has signed it"
    assert waits(after([first, final])) == []
    assert waits(after([first, final, later])) == [(3, "new-images")]
    assert waits(after([first, final, later, report(2, "amended", ISSUED_MS + 5000)])) == [], "it speaks of them"
    assert waits(after([first, later, again, paper, report(1, "final", ISSUED_MS + 1500)])) == [], (
        "what came again, or is no image, is nothing new"
    )
    assert waits(after([first, final, taken])) == [(3, "taken-back")]
    urgent, moved = orders()
    assert waits(after([first, urgent])) == waits(after([urgent, first])) == [(0, "")]
    assert waits(after([first, urgent, moved])) == [(3, "")]


def test_any_order_of_topics_gives_the_same_rows() -> None:
    came = arrivals([FIRST, LATER, AGAIN], MemoryObjects())
    told = [report(1, "final", ISSUED_MS), report(2, "corrected", ISSUED_MS + 500)]
    expected = run(dump(after([*came, *told, *orders()])))["reading_waiting"]
    assert [(r["rank"], r["why"], r["modality"]) for r in expected] == [(3, "new-images", ""), (3, "new-images", "CT")]
    for pair in interleaved(came, told):
        for batches in interleaved(pair, orders()):
            assert run(dump(after(batches)))["reading_waiting"] == expected


def test_who_knew_less_loses_also_when_written_later() -> None:
    (first,) = arrivals([FIRST], MemoryObjects())
    tables = MemoryTables()
    run(tables.apply(first))
    stale = [w for known in run(ToRead(tables)._known(["1.2.3"])) for w in listed(known, moved=False)]
    final, (urgent, _) = report(1, "final", ISSUED_MS), orders()
    for news in (urgent, final):
        run(tables.apply(news))
        run(ToRead(tables).look(news))
    run(tables.apply(stale))
    assert waits(tables) == []
