from datetime import datetime

import pytest

from infra import clock


def test_uuid7_is_version_7_and_grows_though_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [clock.uuid7() for _ in range(5000)]
    monkeypatch.setattr(clock, "now_ms", lambda: 1_000)
    ids += [clock.uuid7() for _ in range(10)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}


def test_uuid7_holds_the_time_in_its_first_48_bits() -> None:
    assert abs((clock.uuid7().int >> 80) - clock.now_ms()) < 2_000


def test_rfc3339_is_utc_with_microseconds_and_refuses_a_moment_without_zone() -> None:
    assert clock.rfc3339(datetime.fromisoformat("2025-03-01T10:15:00+02:00")) == "2025-03-01T08:15:00.000000Z"
    with pytest.raises(ValueError, match="zone"):
        clock.rfc3339(datetime.fromisoformat("2025-03-01T10:15:00"))
    assert clock.now().tzinfo is not None
