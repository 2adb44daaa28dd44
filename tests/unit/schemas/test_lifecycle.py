"""The full product of report states: what may follow what."""

from __future__ import annotations

import pytest

from schemas.lifecycle import REPORT_TRANSITIONS, may_follow

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
