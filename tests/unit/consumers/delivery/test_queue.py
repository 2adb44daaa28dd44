"""Whose turn it is: order, fairness, back-off and the circuit, with a clock that the test turns."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.delivery.entry import Entry
from consumers.delivery.queue import (
    CIRCUIT_FAILURES,
    CIRCUIT_MOST_S,
    REFUSED,
    RETRY_MOST_S,
    Circuit,
    Owed,
    Queue,
    back_off,
)
from tests.unit.consumers.delivery.around import issued

T0 = datetime(2026, 11, 23, tzinfo=UTC)


def entry(subject: str, n: int) -> Entry:
    return Entry(f"{subject}-{n}", "to", subject, issued(subject, n + 1), T0 + timedelta(seconds=n), offset=n)


def test_back_off_doubles_within_bounds_and_by_chance() -> None:
    assert [back_off(1, 300, n, lambda: 1.0) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert back_off(1, 300, 4, lambda: 0.0) == 4
    assert back_off(1, 300, 10_000, lambda: 1.0) == 300


def test_the_circuit_opens_lets_one_call_try_and_closes() -> None:
    circuit = Circuit()
    for n in range(CIRCUIT_FAILURES):
        assert circuit.room(0.0, n, 8) == 8 - n
        circuit.failed(0.0, lambda: 1.0)
    assert circuit.open
    assert circuit.room(0.5, 0, 8) == 0
    assert circuit.room(1.0, 0, 8) == 1
    assert circuit.room(1.0, 1, 8) == 0, "one call at a time"
    for _ in range(50):
        circuit.failed(1.0, lambda: 1.0)
    assert circuit.closed_at == 1.0 + CIRCUIT_MOST_S
    assert circuit.succeeded()
    assert circuit.room(1.0, 0, 8) == 8
    assert not circuit.succeeded()


def test_after_an_outage_all_that_was_tried_is_due_at_once() -> None:
    queue = Queue(lambda: 1.0)
    for n in range(CIRCUIT_FAILURES + 1):
        queue.add(Owed(entry(f"s{n}", 0)))
    taken = queue.take(0.0, CIRCUIT_FAILURES)
    for owed in taken:
        queue.failed(owed, "away", 0.0)
    assert queue.circuit.open
    assert queue.take(0.1, 8) == []
    assert 0.1 < queue.next_due(0.1) <= 1.0
    (probe,) = queue.take(1.0, 8)
    queue.delivered(probe)
    assert len(queue.take(1.0, 8)) == CIRCUIT_FAILURES


def test_what_the_destination_asked_for_is_kept() -> None:
    queue = Queue(lambda: 0.0)
    queue.add(Owed(entry("s", 0)))
    (owed,) = queue.take(0.0, 8)
    assert queue.failed(owed, "busy", 0.0, least_s=40.0) == 40.0
    assert queue.take(39.0, 8) == []
    assert queue.take(40.0, 8) == [owed]


def test_a_refused_one_lets_the_next_go_and_comes_back_in_its_order() -> None:
    queue = Queue(lambda: 0.0)
    queue.add(Owed(entry("s", 1)))
    queue.add(Owed(entry("s", 0)))
    (first,) = queue.take(0.0, 8)
    assert first.entry.id == "s-0", "by their order, not by that of adding"
    queue.refused(first)
    assert queue.wake([first]) == 1
    assert queue.take(0.0, 8)[0] is first
    assert len(queue) == 2


def test_a_refused_one_of_the_last_life_stays_aside() -> None:
    queue = Queue(lambda: 0.0)
    queue.add(Owed(entry("s", 0), REFUSED))
    assert queue.take(1e9, 8) == []
    assert [o.entry.id for o in queue] == ["s-0"]


def test_something_new_tries_what_waits() -> None:
    queue = Queue(lambda: 1.0)
    queue.add(Owed(entry("s", 0)))
    (owed,) = queue.take(0.0, 8)
    assert queue.waits(owed, "patient-unknown", 0.0)
    assert queue.take(0.1, 8) == []
    queue.add(Owed(entry("s", 1)))
    assert queue.take(0.1, 8) == [owed]
    assert not queue.waits(owed, "patient-unknown", 0.1), "nothing new to tell"
    assert queue.waits(queue.take(1e3, 8)[0], "study-unknown", 1e3)


STEPS = st.lists(st.sampled_from(["delivered", "refused", "waits", "failed", "postponed"]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=25), STEPS, st.integers(0, 2**32))
def test_whatever_happens_each_is_delivered_once_in_order(subjects: list[int], steps: list[str], seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 (repeatable)
    queue = Queue(rng.random)
    for n, subject in enumerate(subjects):
        queue.add(Owed(entry(f"s{subject}", n)))
    now, delivered, aside = 0.0, list[Entry](), set[str]()
    script = iter(steps)
    for _ in range(2_000):
        taken = queue.take(now, 3)
        assert len({o.entry.subject for o in taken}) == len(taken), "never two of a subject at once"
        for owed in taken:
            match next(script, "delivered"):
                case "delivered":
                    queue.delivered(owed)
                    delivered.append(owed.entry)
                case "refused":
                    queue.refused(owed)
                    aside.add(owed.entry.id)
                case "waits":
                    queue.waits(owed, "unknown", now)
                case "failed":
                    queue.failed(owed, "away", now)
                case _:
                    queue.postponed(owed, now, 0.1)
        if len(delivered) + len(aside) == len(subjects):
            break
        now += queue.next_due(now) + 1e-6
    assert len(delivered) + len(aside) == len(subjects)
    assert len({e.id for e in delivered}) == len(delivered)
    for of in {e.subject for e in delivered}:
        order = [e.offset for e in delivered if e.subject == of]
        assert order == sorted(order)
    assert {o.entry.id for o in queue} == aside
    assert now <= 40 * (RETRY_MOST_S + CIRCUIT_MOST_S + 600)
    assert queue.running == 0
