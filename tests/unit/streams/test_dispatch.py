"""The dispatch table is whole, and each projection's rows are what the tables hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from schemas.errors import Invalid
from schemas.events import EVENTS, AccessGranted, DuplicateFound, Event, Shown, StudyCompleted
from schemas.tables import Upsert
from streams.dispatch import BY_STUDY, CORRECTIONS, NOT_PROJECTED, PROJECT, TOPICS_FOLLOWED, project, wanted
from streams.limits import within
from tests.unit.streams.samples import T0, fact

WHO: dict[str, Any] = {
    "access_id": "01953fcb-9c00-7000-8000-000000000001",
    "actor": "http:127.0.0.1",
    "role": "local",
    "purpose": "TREAT",
    "action": "search",
    "occurred": "2025-03-01T08:00:00Z",
}
KEY = "k1:" + "a" * 43


def test_every_event_has_one_place() -> None:
    for event in EVENTS:
        places = (event in PROJECT) + (event in BY_STUDY) + (event in CORRECTIONS) + (event in NOT_PROJECTED)
        assert places == 1, event.TYPE


def test_topics_without_events_are_followed_too() -> None:
    assert "sijil.study.corrections" in TOPICS_FOLLOWED
    assert "sijil.dead-letters" not in TOPICS_FOLLOWED


def test_a_list_of_what_was_shown_is_fetched() -> None:
    few = AccessGranted(**WHO, shown=[Shown(study_uid="1.2")])
    many = AccessGranted(**WHO, shown_count=500, shown_list="accesses/x.json")
    assert wanted(few) is None
    want = wanted(many)
    assert want is not None
    assert (want.kind, want.key, want.bucket) == ("shown", "accesses/x.json", "")
    listed = [Shown(study_uid=f"1.{n}", patient_key=KEY) for n in range(500)]
    writes = project(fact(many, 3), listed)
    assert Counter(w.table for w in writes) == {
        "accesses_by_study": 500,
        "accesses_by_patient": 500,
        "accesses_by_actor": 1,
        "accesses_by_hour": 1,
    }
    assert {w.key.get("month", "202502") for w in writes} == {"202502"}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (
            DuplicateFound(study_uid="1.2", pack_id=WHO["access_id"], offset=1, comparison="sha256", instances=1 << 31),
            "figure-too-large",
        ),
        (
            DuplicateFound(study_uid="1.2", pack_id=WHO["access_id"], offset=1 << 63, comparison="sha256", instances=1),
            "figure-too-large",
        ),
    ],
)
def test_what_no_row_can_hold_fails_alone(event: Event, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        within(project(fact(event, 1)))
    assert refused.value.reason == reason


def test_an_id_longer_than_a_key_fails_alone() -> None:
    event = DuplicateFound(study_uid="1.2", pack_id=WHO["access_id"], offset=1, comparison="sha256", instances=1)
    with pytest.raises(Invalid) as refused:
        within(project(fact(event, 1, id="x" * 70_000)))
    assert refused.value.reason == "key-too-long"


def test_a_time_that_only_looks_like_one_is_refused() -> None:
    event = StudyCompleted(
        study_uid="1.2",
        basis="quiet",
        revision=1,
        as_of_partition=0,
        as_of_offset=0,
        packs=1,
        series=1,
        instances=1,
        bytes=1,
        first_arrival="2025-02-30T00:00:00Z",
        last_arrival="2025-02-30T00:00:00Z",
    )
    with pytest.raises(Invalid, match="time-invalid"):
        project(fact(event, 1))
    fine = msgspec.structs.replace(event, last_arrival="2025-03-01T08:00:00.000Z")
    study, timer = project(fact(fine, 7))
    assert isinstance(study, Upsert)
    assert (study.timestamp, study.columns["completed_time"]) == (1, "2025-03-01T08:00:00.000Z")
    assert timer.key["bucket"] == T0 // 60_000
