"""Decisions about devices: on the log before the AE table holds them, and none of what was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from infra import ae_table
from infra.ae_table import Ae
from infra.chain import Publishes
from infra.memory import MemoryTables
from producers.devices import Devices
from schemas.errors import Invalid, NotFound, Overloaded
from schemas.events import DeviceChanged, DeviceRegistered, DeviceRemoved, Event, encode_payload
from schemas.tables import STATE_KEYSPACE, STATE_TABLES
from tests.unit.consumers.archive import Journal, Published

CT = Ae("CT1", "10.2.0.17", 11112, "CAI-01", "modality", "", "ab" * 32)
ADMIN = "person:1"


class Watching(Journal):
    """Notes what the table holds when an event is said."""

    def __init__(self, tables: MemoryTables) -> None:
        super().__init__()
        self.tables = tables
        self.held: list[list[Ae]] = []

    def publish(self, event: Event, *, id: str = "", subject: str = "", traceparent: str = "") -> Published:
        """As the chain."""
        self.held.append(asyncio.run(ae_table.read(self.tables)))
        return super().publish(event, id=id)


class World:
    """A table and a chain."""

    def __init__(self) -> None:
        self.tables = MemoryTables(STATE_KEYSPACE, STATE_TABLES)
        self.journal = Watching(self.tables)
        self.devices = Devices(cast(Publishes, self.journal), acknowledged_s=0.01)

    def do(self, change: Coroutine[Any, Any, object]) -> object:
        """Await it."""
        return asyncio.run(change)

    @property
    def rows(self) -> list[Ae]:
        """What the doors read."""
        return asyncio.run(ae_table.read(self.tables))


@pytest.fixture
def world() -> World:
    return World()


def test_each_decision_is_said_before_it_holds(world: World) -> None:
    moved = replace(CT, host="10.2.0.18", tls=True)
    assert world.do(world.devices.put(world.tables, CT, ADMIN)) is True
    assert world.do(world.devices.put(world.tables, CT, ADMIN)) is False, "as it was: nobody decided anything"
    assert world.do(world.devices.put(world.tables, moved, "operator:1000")) is True
    world.do(world.devices.remove(world.tables, "CT1", ADMIN))
    added, changed, removed = (p.event for p in world.journal.published)
    assert isinstance(added, DeviceRegistered)
    assert isinstance(changed, DeviceChanged)
    assert isinstance(removed, DeviceRemoved)
    assert world.journal.held == [[], [CT], [moved]], "what the doors knew while it was said"
    assert (added.actor, added.key(), added.after.certificate) == (ADMIN, "CT1", "ab" * 32)
    assert (changed.actor, changed.before.host, changed.after.host) == ("operator:1000", CT.host, moved.host)
    assert (changed.before.tls, changed.after.tls, removed.before) == (False, True, changed.after)
    assert world.rows == []
    assert len(encode_payload(changed)) < 1000


def test_what_is_refused_or_cannot_be_said_changes_nothing(world: World) -> None:
    for wrong in (replace(CT, port=70_000), replace(CT, host=""), replace(CT, ae_title="A" * 17)):
        with pytest.raises(Invalid):
            world.do(world.devices.put(world.tables, wrong, ADMIN))
    with pytest.raises(NotFound):
        world.do(world.devices.remove(world.tables, "CT1", ADMIN))
    anyone = Ae(ae_table.ANY, "10.0.0.0/8", 0, role="any")
    world.do(world.devices.put(world.tables, anyone, "operator:0"))
    with pytest.raises(Invalid, match="operator"):
        world.do(world.devices.remove(world.tables, ae_table.ANY, ADMIN))
    assert [p.event.TYPE for p in world.journal.published] == ["device.registered.v1"]
    world.journal.full = True
    with pytest.raises(Overloaded):
        world.do(world.devices.put(world.tables, CT, ADMIN))
    with pytest.raises(Overloaded):
        world.do(world.devices.remove(world.tables, ae_table.ANY, "operator:0", operator=True))
    assert world.rows == [anyone]


def test_with_kafka_away_the_journal_is_the_promise(world: World) -> None:
    world.journal.acknowledges = False
    assert world.do(world.devices.put(world.tables, CT, ADMIN)) is True
    assert (world.rows, len(world.journal.published)) == ([CT], 1)
