"""Buckets: what a rate promises to who keeps to it, and to the memory of who does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.rates import BURST_S, Buckets


@given(st.floats(0.5, 50), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_in_any_time_no_more_than_the_burst_and_the_rate(rate: float, pauses: list[float]) -> None:
    buckets, now, taken = Buckets(rate), 0.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("a", now)
        taken += not wait
        assert wait <= 1 / rate + 1e-6
        if wait:
            assert buckets.take("a", now + wait + 1e-6) == 0.0, "who waits as told may ask"
            now, taken = now + wait + 1e-6, taken + 1
    assert taken <= max(1.0, rate * BURST_S) + rate * now + 1e-6


@given(st.floats(0.5, 50), st.integers(1, 300))
def test_who_keeps_to_the_rate_is_never_refused(rate: float, count: int) -> None:
    buckets = Buckets(rate)
    assert not any(buckets.take("a", n / rate + n * 1e-9) for n in range(count))


def test_no_rate_no_limit_and_nothing_remembered() -> None:
    buckets = Buckets(0.0)
    assert not any(buckets.take("a", 0.0) for _ in range(1000))
    assert not len(buckets)


def test_one_does_not_take_the_turns_of_another() -> None:
    buckets = Buckets(1.0)
    while not buckets.take("greedy", 0.0):
        pass
    assert buckets.take("other", 0.0) == 0.0
    assert buckets.take("greedy", 0.0) == pytest.approx(1.0)


def test_memory_is_bounded_and_the_longest_unseen_go_first() -> None:
    buckets = Buckets(0.1, buckets_max=10)
    assert not buckets.take("steady", 0.0)
    for n in range(1000):
        buckets.take(f"once-{n}", 0.0)
        assert buckets.take("steady", 0.0), "its bucket is not made anew while it asks"
    assert len(buckets) == 10
