"""The durable outbox on ports in memory: once, in order, through faults and restarts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumers.delivery import deliverer as module
from consumers.delivery import feed as feed_module
from consumers.delivery import queue as queue_module
from consumers.delivery.entry import Away, Delivered, Entry, Instead, Outcome, Refused, Waiting
from consumers.delivery.outbox import Offsets, request
from infra import clock, faults
from schemas.errors import Transient
from schemas.events import ReportDelivered, ReportDeliveryFailed
from schemas.identity import derived_id
from tests.unit.consumers.delivery.around import Told, World, issued, until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds."""
    monkeypatch.setattr(feed_module, "POLL_S", 0.005)
    for name in ("RETRY_FIRST_S", "WAIT_FIRST_S", "CIRCUIT_FIRST_S"):
        monkeypatch.setattr(queue_module, name, 0.004)
    for name in ("RETRY_MOST_S", "WAIT_MOST_S", "CIRCUIT_MOST_S"):
        monkeypatch.setattr(queue_module, name, 0.02)
    monkeypatch.setattr(module, "REQUESTS_S", 0.01)
    monkeypatch.setattr(module, "OURS_S", 0.01)
    monkeypatch.setattr(module, "BEHIND_S", 0.005)


def test_each_version_once_and_in_order() -> None:
    async def scenario() -> None:
        world, told = World(), Told()
        await world.happens(*(issued(r, v) for v in (1, 2, 3) for r in range(20)))
        deliverer = world.deliverer(told)
        async with world.running(deliverer):
            await until(lambda: len(told.took) == 60 and not len(deliverer.queue))
        for report in range(20):
            id = derived_id("report", report)
            assert [v for r, v in told.took if r == id] == [1, 2, 3], "the versions of a report keep their order"
        assert len(told.calls) == 60, "none is handed over twice"
        assert await world.open_rows() == []
        delivered = [e for _, e in world.chain.events]
        assert {(e.report_id, e.version) for e in delivered if isinstance(e, ReportDelivered)} == set(told.took)
        assert {e.attempt for e in delivered if isinstance(e, ReportDelivered)} == {1}
        assert told.closed

    asyncio.run(scenario())


def test_a_new_process_takes_up_what_was_left_and_nothing_else() -> None:
    async def scenario() -> None:
        world, first = World(), Told()
        first.hold.clear()
        await world.happens(*(issued(r) for r in range(12)))
        async with world.running(world.deliverer(first)):
            await until(lambda: len(first.calls) == module.CALLS_MAX)
        assert first.took == [], "killed while every call was under way"
        assert len(await world.open_rows()) == 12
        second = Told()
        deliverer = world.deliverer(second)
        async with world.running(deliverer):
            await until(lambda: len(second.took) == 12 and not len(deliverer.queue))
        ids = {c.event.key(): c.id for c in first.calls}
        again = {c.event.key(): c.id for c in second.calls}
        assert len(again) == 12
        assert ids.items() <= again.items(), "the idempotency key is that of the first call"
        third = Told()
        await world.happens(issued(99))
        async with world.running(world.deliverer(third)):
            await until(lambda: len(third.took) == 1)
        assert third.took == [(derived_id("report", 99), 1)]

    asyncio.run(scenario())


@pytest.mark.parametrize("point", ["delivery.accepted", "delivery.followed", "delivery.called", "delivery.published"])
def test_killed_between_any_two_steps(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world, told = World(), Told()
        await world.happens(*(issued(r, v) for v in (1, 2) for r in range(10)))
        this, passed = asyncio.current_task(), []

        def die(name: str) -> None:
            if name == point:
                passed.append(name)
            if len(passed) == 1:
                for task in asyncio.all_tasks() - {this}:
                    task.cancel()
                raise asyncio.CancelledError

        monkeypatch.setattr(faults, "point", die)
        async with world.running(world.deliverer(told)):
            await until(lambda: bool(passed))
        assert passed
        assert await world.open_rows(), "what was under way is not lost"
        passed.append("the next life")
        deliverer = world.deliverer(told)
        async with world.running(deliverer):
            await until(lambda: len(set(told.took)) == 20 and not len(deliverer.queue))
        assert await world.open_rows() == []
        for report in range(10):
            id = derived_id("report", report)
            versions = [v for r, v in told.took if r == id]
            assert versions == sorted(versions), "also what is repeated keeps its order"
        keys = {(c.event.key(), c.event.version): c.id for c in told.calls}  # type: ignore[attr-defined]
        assert {c.id for c in told.calls} == set(keys.values()), "a repeat has the key of the first call"
        ids = {id for id, _ in world.chain.events}
        assert len(ids) == 20, "an attempt is one event, also when it is told twice"

    asyncio.run(scenario())


def test_rows_beyond_the_cursors_are_delivered_once_whenever_the_log_is_read_again() -> None:
    async def scenario() -> None:
        world, told = World(), Told()
        await world.happens(*(issued(1, v) for v in (1, 2, 3)))
        killed = world.deliverer(told)
        move = killed.feed._outbox.move
        moved: list[Offsets] = []

        async def dies_at_the_second(topic: str, offsets: Offsets) -> None:
            moved.append(offsets)
            if len(moved) == 2:
                raise asyncio.CancelledError
            await move(topic, offsets)

        killed.feed._outbox.move = dies_at_the_second  # type: ignore[assignment,method-assign]
        async with world.running(killed):
            await until(lambda: len(moved) == 2)
        assert len(await world.open_rows()) == 3
        assert told.calls == []
        read, away = world.log.read, True

        def reads(*args: Any) -> Any:
            if away:
                raise Transient("kafka-away", "tried while it was away")
            return read(*args)

        world.log.read = reads  # type: ignore[assignment,method-assign]
        async with world.running(deliverer := world.deliverer(told)):
            await until(lambda: deliverer.loaded)
            await asyncio.sleep(0.05)
            assert told.calls == [], "what is read again anyway is not delivered before"
            away = False
            await until(lambda: len(told.took) == 3 and not len(deliverer.queue))
            await world.happens(issued(2))
            await until(lambda: len(told.took) == 4)
        assert [v for r, v in told.took] == [1, 2, 3, 1], "once, in order"
        assert len(told.calls) == 4

    asyncio.run(scenario())


def test_a_dead_destination_holds_up_no_other_and_is_left_alone() -> None:
    async def scenario() -> None:
        world, alive = World(), Told("alive")
        back = False

        def answer(entry: Entry) -> Outcome:
            if not back:
                raise Away("connection-refused")
            return Delivered()

        dead = Told("dead", answer)
        await world.happens(*(issued(r) for r in range(200)))
        deliverer, other = world.deliverer(dead), world.deliverer(alive)
        async with world.running(deliverer, other):
            await until(lambda: len(alive.took) == 200 and not len(other.queue))
            await until(lambda: deliverer.queue.circuit.open)
            calls = len(dead.calls)
            assert calls < 40, "a circuit that is open lets one call at a time find out"
            assert len([r for r in await world.open_rows() if r["destination"] == "dead"]) == 200
            back = True
            await until(lambda: len(dead.took) == 200 and not len(deliverer.queue))
        assert await world.open_rows() == []
        failed = [e for _, e in world.chain.events if isinstance(e, ReportDeliveryFailed)]
        assert failed
        assert all(e.will_retry and e.reason == "connection-refused" for e in failed)
        done = [e for _, e in world.chain.events if isinstance(e, ReportDelivered) and e.destination == "dead"]
        assert len(done) == 200
        assert len({id for id, _ in world.chain.events}) == len(world.chain.events)

    asyncio.run(scenario())


def test_what_waits_is_asked_again_what_is_refused_waits_for_a_person() -> None:
    async def scenario() -> None:
        world = World()
        waiting, refused = derived_id("report", 1), derived_id("report", 2)
        known = accepted = False

        def answer(entry: Entry) -> Outcome:
            if entry.event.key() == waiting and not known:
                return Waiting("patient-unknown")
            if entry.event.key() == refused and not accepted and entry.event == issued(2):
                return Refused("http-422")
            return Delivered()

        told = Told(answer=answer)
        await world.happens(issued(1), issued(1, 2), issued(2), issued(2, 2), issued(3))
        deliverer = world.deliverer(told)
        async with world.running(deliverer):
            await until(lambda: {(refused, 2), (derived_id("report", 3), 1)} <= set(told.took))
            await until(lambda: len([c for c in told.calls if c.event.key() == waiting]) > 2)
            rows = {(r["subject"], r["state"], r["reason"]) for r in await world.open_rows()}
            assert (f"report/{waiting}", "waiting", "patient-unknown") in rows
            assert (f"report/{refused}", "refused", "http-422") in rows, "what follows was called after that was noted"
            assert (waiting, 2) not in told.took, "what waits keeps its order"
            failed = [e for _, e in world.chain.events if isinstance(e, ReportDeliveryFailed)]
            assert [(e.report_id, e.will_retry) for e in failed] == [(refused, False)]
            known = True
            await until(lambda: (waiting, 2) in told.took)
            calls = len(told.calls)
            await asyncio.sleep(0.05)
            assert len(told.calls) == calls, "nobody asks again for what was refused"
            # A person does.
            accepted = True
            await world.state.apply([request("told", str(clock.uuid7()), None, "person:7")])
            await until(lambda: (refused, 1) in told.took and not len(deliverer.queue))
            await asyncio.sleep(0.03)
        assert await world.open_rows() == []
        assert [r async for r in world.state.scan("delivery_requests")] == []

    asyncio.run(scenario())


def test_a_person_asks_for_what_was_delivered() -> None:
    async def scenario() -> None:
        world, told = World(), Told()
        await world.happens(issued(1))
        deliverer = world.deliverer(told)
        async with world.running(deliverer):
            await until(lambda: len(told.took) == 1)
            id = str(clock.uuid7())
            entry = Entry(id, "told", f"report/{derived_id('report', 1)}", issued(1), clock.now(), asked_by="person:7")
            await world.state.apply([request("told", id, entry, "person:7")])
            await until(lambda: len(told.took) == 2 and not len(deliverer.queue))
        assert told.calls[1].id == id
        assert told.calls[1].asked_by == "person:7"
        assert await world.open_rows() == []

    asyncio.run(scenario())


def test_nothing_is_called_before_the_read_models_have_the_event() -> None:
    async def scenario() -> None:
        world, told = World(), Told()
        await world.happens(issued(1), projected=False)
        async with world.running(world.deliverer(told)):
            await asyncio.sleep(0.05)
            assert told.calls == []
            await world.happens(issued(1), issued(2))
            await until(lambda: len({r for r, _ in told.took}) == 2)

    asyncio.run(scenario())


def test_faults_of_this_side_are_not_the_destinations() -> None:
    async def scenario() -> None:
        world = World()
        tries = 0

        def answer(entry: Entry) -> Outcome:
            nonlocal tries
            tries += 1
            if tries < 8:
                raise Transient("S3 is away")
            return Delivered()

        told = Told(answer=answer)
        await world.happens(issued(1))
        deliverer = world.deliverer(told)
        async with world.running(deliverer):
            await until(lambda: len(told.took) == 1)
            assert not deliverer.queue.circuit.open
            await until(lambda: len(world.chain.events) == 1)
        assert isinstance(world.chain.events[0][1], ReportDelivered)

    asyncio.run(scenario())


def test_what_comes_to_several_is_each_of_them_and_who_waits_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "WAIT_FIRST_S", 60.0)
    monkeypatch.setattr(queue_module, "WAIT_MOST_S", 60.0)

    async def scenario() -> None:
        world = World()
        known: list[str] = []

        def answer(entry: Entry) -> Outcome:
            if entry.subject == f"report/{derived_id('report', 2)}":
                known.append("2")
                return Instead(("report/a", "report/b"))
            return Delivered() if known else Waiting("patient-unknown")

        told = Told(answer=answer)
        await world.happens(issued(1))
        deliverer = world.deliverer(told)
        async with world.running(deliverer):
            await until(lambda: bool(told.calls) and deliverer.queue.running == 0)
            await world.happens(issued(2))
            await until(lambda: len(told.calls) == 5 and not len(deliverer.queue))
        subjects = [c.subject for c in told.calls]
        assert set(subjects[2:]) == {"report/a", "report/b", f"report/{derived_id('report', 1)}"}
        assert len({c.id for c in told.calls}) == 4, "each under a key of its own"
        assert await world.open_rows() == []

    asyncio.run(scenario())


def test_what_it_stumbles_over_is_set_aside_and_holds_up_nothing() -> None:
    async def scenario() -> None:
        world = World()

        def answer(entry: Entry) -> Outcome:
            if entry.event.version == 1:  # type: ignore[attr-defined]
                raise ValueError("a font without a glyph")
            return Delivered()

        told = Told(answer=answer)
        count = 2 * module.CALLS_MAX
        await world.happens(*(issued(r, v) for v in (1, 2) for r in range(count)))
        deliverer = world.deliverer(told)
        async with world.running(deliverer):
            await until(lambda: len(told.took) == count and deliverer.queue.running == 0)
        assert {v for _, v in told.took} == {2}, "also what follows it of the same report"
        rows = await world.open_rows()
        assert len(rows) == count
        assert {(r["state"], r["reason"]) for r in rows} == {("refused", "archive-fault")}

    asyncio.run(scenario())


def test_kafka_and_cassandra_away_for_a_while() -> None:
    async def scenario() -> None:
        world, told = World(), Told()
        deliverer = world.deliverer(told)
        await world.happens(issued(1))
        async with world.running(deliverer):
            await until(lambda: len(told.took) == 1)
            told.hold.clear()
            await world.happens(issued(2))
            await until(lambda: len(told.calls) == 2)
            world.log.away = world.state.away = True
            told.hold.set()
            await asyncio.sleep(0.05)
            world.log.away = world.state.away = False
            await world.happens(issued(3))
            await until(lambda: len(told.took) == 3)
            await until(lambda: len(deliverer.queue) == 0)
        assert await world.open_rows() == []
        assert [r for r, _ in told.took] == [derived_id("report", n) for n in (1, 2, 3)]

    asyncio.run(scenario())
