"""Which keyspace answers, and how fresh it is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.api.freshness import SAMPLES_MAX, Freshness, History
from consumers.api.views import Views
from infra.active_views import activate
from infra.memory import MemoryLog, MemoryTables
from schemas.envelope import encode
from schemas.errors import Transient
from schemas.events import AccessDenied
from schemas.tables import Upsert
from tests.unit.consumers.archive import MemoryArchive, part10


def test_a_switch_is_seen_and_fails_no_request() -> None:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1")])
    fresh = archive.tables.with_keyspace("sijil_views_2")

    async def run() -> None:
        views = Views(lambda: archive.tables)
        with pytest.raises(Transient):
            _ = views.tables
        await views.look()
        before = views.tables
        assert views.keyspace == "sijil_views"
        await activate(archive.tables, "sijil_views_2")
        await views.look()
        assert (views.keyspace, views.reachable) == ("sijil_views_2", True)
        assert views.tables is not before
        await fresh.apply([Upsert("studies", {"study_uid": "1.2.9"}, {}, 1)])
        assert await views.tables.scan("studies").__anext__()

    asyncio.run(run())


def test_without_read_models_the_door_says_so_and_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1")])

    async def run() -> None:
        async with archive.client() as client:
            monkeypatch.setattr(MemoryTables, "away", True)
            answer = await client.get("/dicom-web/studies")
            assert answer.status_code == 503
            assert "Retry-After" in answer.headers
            monkeypatch.undo()
            assert (await client.get("/dicom-web/studies")).status_code == 200

    asyncio.run(run())


def test_the_door_opens_without_read_models(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = MemoryArchive()
    monkeypatch.setattr(MemoryTables, "away", True)

    async def run() -> None:
        app, door = archive.app()
        async with door.lifespan(app):
            await asyncio.sleep(0.05)
            status, body = door.ready()
            assert (status, body["ready"]) == (503, False)

    asyncio.run(run())


# ------------------------------------------------------------------------------------------------ freshness


def test_a_lag_is_as_old_as_the_oldest_thing_that_waits() -> None:
    history = History()
    assert history.lag({0: 5, 1: 5}, {0: 5, 1: 5}, 100.0).events == 0
    assert history.lag({0: 7, 1: 5}, {0: 5, 1: 5}, 101.0).events == 2
    later = history.lag({0: 9, 1: 6}, {0: 6, 1: 5}, 102.0)
    assert (later.events, later.seconds) == (4, 2.0)
    caught = history.lag({0: 9, 1: 6}, {0: 9, 1: 5}, 103.0)
    assert (caught.events, caught.seconds) == (1, 2.0)
    assert history.lag({0: 9, 1: 6}, {0: 9, 1: 6}, 104.0).seconds == 0.0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=40))
def test_a_lag_never_hides(steps: list[tuple[int, int]]) -> None:
    history, end, applied, behind_since = History(), 0, 0, None
    for now, (more, done) in enumerate(steps):
        end, applied = end + more, min(end + more, applied + done)
        found = history.lag({0: end}, {0: applied}, float(now))
        assert found.events == end - applied
        behind_since = None if not found.events else now if behind_since is None else behind_since
        assert (found.seconds > 0 or now == 0 or behind_since == now or not found.events) or found.seconds == 0.0


def test_a_long_lag_keeps_its_age_in_bounded_memory() -> None:
    history = History()
    for now in range(5 * SAMPLES_MAX):
        found = history.lag({0: now + 1}, {0: 0}, float(now))
    assert found.seconds == 5 * SAMPLES_MAX - 1
    assert len(history._samples) <= SAMPLES_MAX + 1


def test_the_header_says_what_the_background_found() -> None:
    log, tables = MemoryLog(), MemoryTables()

    async def run() -> None:
        views = Views(lambda: tables)
        freshness = Freshness(log, views)
        assert freshness.header("sijil.accesses") == "unknown"
        await views.look()
        await freshness.look()
        assert freshness.header("sijil.accesses") == "events=0; seconds=0.0"
        event = AccessDenied(
            access_id="01900000-0000-7000-8000-000000000001",
            actor="http:x",
            role="local",
            purpose="TREAT",
            action="search",
            occurred="2025-03-01T08:00:00Z",
            reason="x",
        )
        position = log.append(encode(event, id="1", source="/x", time="2025-03-01T08:00:00Z")).result()
        await freshness.look()
        assert freshness.header("sijil.accesses").startswith("events=1;")
        assert freshness.events() == 1
        key = {"projection": "views", "topic": position.topic, "partition": position.partition}
        await tables.apply([Upsert("projection_positions", key, {"next_offset": 1}, 1)])
        await freshness.look()
        assert freshness.header("sijil.accesses") == "events=0; seconds=0.0"

    asyncio.run(run())
