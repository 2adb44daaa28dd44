"""How long a pack is kept."""

from __future__ import annotations

import pytest

from infra.memory import MemoryObjects
from schemas.events import PackArchived
from streams.tiering import RULES, Kept, archived, copy_of, retain_until
from tests.unit.streams.samples import T0, Pack


@pytest.mark.parametrize(
    ("study_date", "least_years", "until", "policy"),
    [
        ("20250228", 5, "2030-03-01T00:00:00Z", "study-date-5y"),
        ("20250228", 10, "2035-03-01T00:00:00Z", "study-date-10y"),
        ("20250228", 1, "2030-03-01T00:00:00Z", "study-date-5y"),
        ("20240229", 5, "2029-03-02T00:00:00Z", "study-date-5y"),
        ("", 5, "2030-03-02T00:00:00Z", "arrival-5y"),
        ("20250302", 5, "2030-03-02T00:00:00Z", "arrival-5y"),  # later than its arrival
        ("19970101", 5, "2030-03-02T00:00:00Z", "arrival-5y"),  # over as it comes
        ("20200310", 5, "2030-03-02T00:00:00Z", "arrival-5y"),  # over before a lock would be worth it
        ("20200501", 5, "2025-05-02T00:00:00Z", "study-date-5y"),
    ],
)
def test_retention(study_date: str, least_years: int, until: str, policy: str) -> None:
    assert retain_until(Kept(study_date, T0), least_years) == (until, policy)


def test_the_last_rule_takes_every_pack() -> None:
    assert RULES[-1].applies(Kept("", 0))


def test_the_event_names_both_versions_and_has_one_id() -> None:
    event = Pack(0).put(MemoryObjects())
    copy = copy_of(event, Kept("", T0), 5)
    first, again = archived(copy, "sijil-archive", "v1", "v2"), archived(copy, "sijil-archive", "v1", "v2")
    assert first == again
    assert isinstance(first.event, PackArchived)
    assert (first.event.version_id, first.event.manifest_version_id) == ("v1", "v2")
    assert first.event.sha256 == event.pack_sha256
