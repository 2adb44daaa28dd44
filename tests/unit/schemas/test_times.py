"""A study's way, and the buckets its durations are counted in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.times import BUCKET_BITS, ERROR, INTERVALS, LONGEST_MS, STEPS, Way, bucket, codes, meaning, told_s, way

T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def step(name: str, minutes: float, of: str = "", kind: str = "") -> dict[str, Any]:
    return {"step": name, "at": at(minutes), "of": of, "kind": kind}


def test_a_way_takes_the_first_of_each_step() -> None:
    rows = [step("ordered", -30, "1/o", "stat"), step("opened", 9), step("opened", 5), step("final", 20)]
    study = {"first_arrival": at(0), "completed_time": "2026-03-01T08:04:00.000Z", "modalities": {"CT"}}
    found = way("1.2", study, [*rows, step("final", 30)])
    assert found.priority == "stat"
    assert {n: found.seconds(n) for n in INTERVALS if found.seconds(n) is not None} == {
        "ordered-arrived": 1800, "arrived-complete": 240, "complete-opened": 60, "complete-final": 960,
        "arrived-final": 1200, "ordered-final": 3000,
    }  # fmt: skip
    later = [step("ordered", -30, "2/o", "routine"), step("ordered", -40, "1/p", "asap")]
    assert way("1.2", study, [*rows, *later]).priority == "routine", "of one moment the later version"


def test_reading_what_was_preliminary_is_not_reading_the_report() -> None:
    early = [step("preliminary", 1), step("read", 2), step("final", 5)]
    assert "read" not in way("1.2", {}, early[:2]).steps
    assert "read" not in way("1.2", {}, early).steps
    assert way("1.2", {}, [*early, step("read", 9), step("read", 7)]).seconds("final-read") == 120


def test_who_was_only_notified_has_no_report() -> None:
    told = [{"destination": d, "occurred": f"2026-03-01T08:0{n}:00Z"} for n, d in ((6, "subscription-1"), (8, "ehr"))]
    assert way("1.2", {}, [step("final", 5)], told).seconds("final-delivered") == 180


@given(st.integers(0, LONGEST_MS))
def test_a_bucket_is_told_within_the_error(took_ms: int) -> None:
    told = told_s(bucket(took_ms))
    assert abs(told * 1000 - took_ms) <= ERROR * took_ms
    assert bucket(took_ms) <= bucket(took_ms + 1) < 1 << BUCKET_BITS


def test_what_is_short_is_exact_and_what_is_too_long_is_counted() -> None:
    assert [told_s(bucket(ms)) for ms in range(50)] == [ms / 1000 for ms in range(50)]
    assert bucket(10 * LONGEST_MS) == bucket(LONGEST_MS)


def test_codes_say_what_was_counted() -> None:
    steps = {s: at(n) for n, s in enumerate(STEPS)}
    data = codes(Way("1.2", steps))
    said = [int.from_bytes(data[n : n + 2], "little") for n in range(0, len(data), 2)]
    assert [meaning(c)[0] for c in said] == [*INTERVALS, *STEPS]
    assert meaning(said[0]) == ("ordered-arrived", bucket(60_000))
    assert codes(Way("1.2", {})) == b""
