"""The full product of report states: what may follow what."""

from __future__ import annotations

import pytest

from schemas.lifecycle import CRITICAL_TRANSITIONS, REPORT_TRANSITIONS, SIGNED, as_written, may_follow

STATES = sorted(REPORT_TRANSITIONS)
BEFORE_FINAL = {"registered", "partial", "preliminary"}
AFTER_FINAL = {"final", "amended", "corrected", "appended"}


@pytest.mark.parametrize("after", STATES)
@pytest.mark.parametrize("status", STATES)
def test_every_pair(status: str, after: str) -> None:
    if status == "":
        allowed = False  # nothing becomes no report
    elif after == "":
        allowed = status != "entered-in-error"
    elif after == "entered-in-error":
        allowed = False
    elif status == "entered-in-error":
        allowed = True
    elif after == "cancelled":
        allowed = False
    elif after in AFTER_FINAL:
        allowed = status in AFTER_FINAL - {"final"}
    else:
        order = ["registered", "partial", "preliminary", "final"]
        forward = status in order and order.index(status) >= order.index(after)
        allowed = status == "cancelled" or forward
    assert may_follow(status, after) is allowed


def test_what_is_no_state_follows_nothing_and_is_followed_by_nothing() -> None:
    assert not may_follow("unknown", "")
    assert not may_follow("final", "unknown")


@pytest.mark.parametrize("after", STATES)
@pytest.mark.parametrize("status", STATES)
def test_who_may_not_sign_never_makes_a_signed_report(status: str, after: str) -> None:
    assert as_written(status, after, True) == status
    kept = as_written(status, after, False)
    assert kept not in SIGNED
    if after in SIGNED or status in SIGNED - {"final"}:
        assert kept == ""
    elif status == "final":
        assert kept == ("preliminary" if may_follow("final", after) else "")
    else:
        assert kept == status


def test_a_critical_result_ends_by_being_read_back_alone() -> None:
    ends = {state for state, following in CRITICAL_TRANSITIONS.items() if not following}
    assert ends == {"acknowledged"}
    assert all(following <= set(CRITICAL_TRANSITIONS) for following in CRITICAL_TRANSITIONS.values())
