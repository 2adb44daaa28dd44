"""Whether studies are arriving."""

from __future__ import annotations

from streams.traffic import LAG_MAX, Traffic


def test_calm_after_a_time_without_an_arrival() -> None:
    traffic = Traffic(5.0)
    assert traffic.busy({0: 3, 1: 0}, {0: 3}, at=100.0)  # the first look
    assert traffic.busy({0: 3, 1: 0}, {0: 3}, at=104.9)
    assert not traffic.busy({0: 3, 1: 0}, {0: 3}, at=105.0)
    assert traffic.busy({0: 3, 1: 1}, {0: 3, 1: 1}, at=106.0)
    assert not traffic.busy({0: 3, 1: 1}, {0: 3, 1: 1}, at=111.0)


def test_busy_while_the_read_models_are_behind() -> None:
    traffic = Traffic(0.0)
    assert not traffic.busy({0: LAG_MAX}, {}, at=1.0)
    assert traffic.busy({0: LAG_MAX + 1}, {}, at=2.0)
    assert not traffic.busy({0: LAG_MAX + 1}, {0: 1}, at=3.0)
