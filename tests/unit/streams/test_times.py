"""Times by site and hour: exact counts, percentiles within the bound, the same rows in whatever order news comes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from consumers.api.times import PERCENTILES, Sums, grouping
from infra.memory import MemoryTables
from schemas import overlay as overlays
from schemas.errors import Transient
from schemas.overlay import Overlay, Rejection
from schemas.tables import Upsert, Write
from schemas.times import ERROR, INTERVALS, STEPS, Way, way
from streams import times
from streams.facts import milliseconds
from streams.milestones import TABLE as MILESTONES
from streams.times import PARTS, SLOTS, SUMS, Times
from tests.unit.streams.samples import T0, run

SITES, MODALITIES, PRIORITIES = ("CAI-1", "ALX-1"), (["CT"], ["CT", "SR"], ["MR", "SR"]), ("routine", "stat")
HOUR_MS = 3_600_000


def said(ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).isoformat().replace("+00:00", "Z")


def step(uid: str, name: str, ms: int, of: str = "", kind: str = "") -> Upsert:
    return Upsert(MILESTONES, {"study_uid": uid, "step": name, "at": ms, "of": of}, {"kind": kind}, 1)


def history(dice: random.Random, n: int) -> list[list[Write]]:
    """The topics of one study, each in its order."""
    uid, report = f"1.2.{n}", str(UUID(int=n))
    arrived = T0 + dice.choice((dice.randrange(3 * HOUR_MS), dice.randrange(20_000)))
    shown = [dice.choice(MODALITIES)]
    shown = [shown[0][:1], *shown]
    key = {"study_uid": uid}
    first = {"first_site": dice.choice(SITES), "first_arrival": arrived}
    arrivals: list[Write] = [Upsert("studies", key, {**first, "modalities": m}, k) for k, m in enumerate(shown)]

    def later() -> int:
        return arrived + dice.choice((0, dice.randrange(100), dice.randrange(HOUR_MS), dice.randrange(40 * HOUR_MS)))

    revisions = sorted(dice.sample(range(1, 99), dice.randrange(3)))
    lifecycle: list[Write] = [
        Upsert("studies", key, {"completed_revision": r, "completed_time": said(ms)}, r)
        for r, ms in zip(revisions, sorted(later() for _ in revisions), strict=True)
    ]
    orders: list[Write] = [
        step(uid, "ordered", arrived + dice.randrange(-HOUR_MS, 100), f"{v:06d}/o", dice.choice(PRIORITIES))
        for v in range(dice.randrange(3))
    ]
    accesses: list[Write] = [
        step(uid, dice.choice(("opened", "read")), later(), "doctor") for _ in range(dice.randrange(5))
    ]
    reports: list[Write] = []
    for v, name in enumerate(("preliminary", "final", "final")[: dice.randrange(4)], 1):
        reports.append(step(uid, name, later(), report))
        reports.append(Upsert("reports", {"report_id": report, "version": v}, {"study_uids": [uid]}, v))
    if reports:
        for attempt in range(1, dice.randrange(1, 4)):
            to = {"report_id": report, "version": 1, "destination": dice.choice(("ehr", "subscription-1"))}
            told = {"occurred": said(later()), "attempt": attempt}
            reports.append(Upsert("deliveries_by_report", {**to, "delivery_id": report}, told, 10 + attempt))
    rejection = Rejection(id="c", code="113001")
    corrections: list[Write] = [
        Upsert("studies", key, {"overlay": overlays.encode(Overlay(revision=r, whole=w))}, r)
        for r, w in enumerate(((rejection,), (rejection, None))[dice.randrange(2)] if dice.random() < 0.3 else ())
    ]
    return [t for t in (arrivals, lifecycle, orders, accesses, reports, corrections) if t]


def batches(dice: random.Random, topics: Sequence[Sequence[Write]]) -> list[list[Write]]:
    """All news, each topic's in its order, of all topics in any, cut somewhere; some of them come twice."""
    left = [list(t) for t in topics]
    found: list[list[Write]] = []
    while left := [t for t in left if t]:
        batch: list[Write] = []
        for _ in range(dice.randrange(1, 9)):
            if topics_left := [t for t in left if t]:
                batch.append(dice.choice(topics_left).pop(0))
        found.append(batch)
        if dice.random() < 0.2:
            found.append(batch)
    return found


async def news(tables: MemoryTables, counting: Sequence[Times], dice: random.Random, of: Sequence[list[Write]]) -> None:
    for batch in of:
        await tables.apply(batch)
        await dice.choice(counting).look(batch)


async def contents(tables: MemoryTables) -> dict[str, list[str]]:
    return {n: sorted([str(r) async for r in tables.scan(n, writetime=True)]) for n in (PARTS, SLOTS, SUMS)}


async def ways(tables: MemoryTables) -> list[tuple[str, Way]]:
    """(site, way) of every study that is to be seen, from the rows of each."""
    milestones = [r async for r in tables.scan(MILESTONES)]
    deliveries = [r async for r in tables.scan("deliveries_by_report")]
    found = []
    async for study in tables.scan("studies"):
        uid = study["study_uid"]
        if study["first_arrival"] is None or (study["overlay"] and overlays.decode(study["overlay"]).whole):
            continue
        mine = [r for r in milestones if r["study_uid"] == uid]
        signed = {r["of"] for r in mine if r["step"] == "final"}
        found.append((study["first_site"], way(uid, study, mine, [d for d in deliveries if d["report_id"] in signed])))
    return found


async def summaries(tables: MemoryTables, by: str) -> list[dict[str, Any]]:
    group = grouping(by, ZoneInfo("Africa/Cairo"))
    assert group is not None
    sums = Sums(group)
    async for row in tables.scan(SUMS):
        sums.add([row])
    return sums.summary()


@pytest.mark.parametrize("seed", range(40))
def test_any_order_and_redelivery_give_the_same_rows_and_they_are_right(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 (repeatable)
    studies = dice.randrange(1, 13)
    topics = [t for n in range(studies) for t in history(dice, n)]
    once, often = MemoryTables(), MemoryTables()
    run(news(once, [Times(once)], dice, [[w] for t in topics for w in t]))
    run(news(often, [Times(often), Times(often)], dice, batches(dice, topics)))
    assert run(contents(once)) == run(contents(often))
    seen = run(ways(once))
    for by, name in (("site", lambda s, w: s), ("priority", lambda s, w: w.priority),
                     ("modality", lambda s, w: "\\".join(w.modalities))):  # fmt: skip
        told = {g["group"]: g for g in run(summaries(once, by))}
        assert sum(g["studies"] for g in told.values()) == len(seen)
        for group in {name(*s) for s in seen}:
            mine = [w for s, w in seen if name(s, w) == group]
            assert told[group]["steps"] == {s: k for s in STEPS if (k := sum(s in w.steps for w in mine))}
            for interval in INTERVALS:
                took = [ms for w in mine if (ms := w.milliseconds(interval)) is not None]
                if not took:
                    assert interval not in told[group]["intervals"]
                    continue
                figures = told[group]["intervals"][interval]
                assert figures["n"] == len(took)
                for p in PERCENTILES:
                    exact = float(np.percentile(took, p, method="inverted_cdf")) / 1000
                    assert abs(figures[f"p{p}"] - exact) <= ERROR * exact + 1e-6


STUDY: list[Write] = [
    Upsert("studies", {"study_uid": "1.2.1"}, {"first_site": "S", "first_arrival": T0, "modalities": ["CT"]}, 1)
]


def test_what_changes_nothing_is_not_counted_again() -> None:
    tables = MemoryTables()
    counting = Times(tables)

    def rows(*writes: Write) -> int:
        run(tables.apply(writes))
        return run(counting.look(writes))

    assert rows(step("1.2.1", "opened", T0 + 9)) == 0, "of a study that is not there yet"
    assert rows(*STUDY) == 3
    assert rows(*STUDY) == rows(step("1.2.1", "opened", T0 + 9)) == rows(step("1.2.1", "opened", T0 + 99)) == 0
    assert rows(step("1.2.1", "opened", T0 + 8)) == 3
    assert rows(Upsert("studies", {"study_uid": "1.2.1"}, {"modalities": ["CT", "SR"]}, 2)) == 3


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_crash_between_two_steps_is_made_good_when_the_batch_comes_again(fails_at: int) -> None:
    tables, whole = MemoryTables(), MemoryTables()
    for each in (tables, whole):
        run(each.apply(STUDY))
    counting, calls = Times(tables), iter(range(1, 9))
    apply = tables.apply

    async def torn(writes: Sequence[Write]) -> None:
        if next(calls) == fails_at:
            raise Transient("gone in the middle")
        await apply(writes)

    with patch.object(tables, "apply", torn), pytest.raises(Transient):
        run(counting.look(STUDY))
    run(counting.look(STUDY))
    run(Times(whole).look(STUDY))
    assert run(contents(tables)) == run(contents(whole))


def test_who_knew_less_loses_also_when_written_later() -> None:
    tables = MemoryTables()
    run(tables.apply(STUDY))
    (known,) = run(Times(tables)._known(["1.2.1"]))
    stale = times.part(known)
    opened = step("1.2.1", "opened", T0 + 5)
    run(news(tables, [Times(tables)], random.Random(1), [[opened]]))  # noqa: S311 (repeatable)
    expected = run(contents(tables))
    slot = times.of_slot("S", stale.key["slot"], [dict(stale.columns)])
    run(tables.apply([stale, slot, times.of_hour("S", slot.key["hour"], [dict(slot.columns)])]))
    assert run(contents(tables)) == expected
    assert milliseconds(known.study["first_arrival"]) == T0
