"""What people decided of devices and endpoints, as a history: the same rows in any order and told twice."""

from __future__ import annotations

import asyncio
from itertools import permutations

import msgspec

from infra.memory import MemoryTables
from infra.ports import Row, Select
from schemas.events import Device, DeviceChanged, DeviceRegistered, DeviceRemoved, EndpointApproved, EndpointWithdrawn
from streams.dispatch import project
from tests.unit.streams.samples import T0, fact

OLD, NEW = Device(host="10.2.0.17", port=104, role="modality"), Device(host="10.2.0.18", port=104, role="pacs")
BY = {"actor": "person:1", "recorded": "2025-03-01T08:00:00Z"}
STORY = (
    DeviceRegistered(ae_title="CT1", after=OLD, **BY),
    DeviceChanged(ae_title="CT1", before=OLD, after=NEW, **BY),
    DeviceRemoved(ae_title="CT1", before=NEW, **BY),
    EndpointApproved(prefix="https://his.example/fhir", **BY),
    EndpointWithdrawn(prefix="https://his.example/fhir", **BY),
)


def rows_after(order: tuple[int, ...]) -> tuple[list[Row], list[Row]]:
    tables = MemoryTables()

    async def run() -> tuple[list[Row], list[Row]]:
        for n in order:
            said = fact(STORY[n], n + 1, at_ms=T0 + n, id=f"01920000-0000-7000-8000-{n:012d}")
            await tables.apply(project(said))
        year = {"year": "2025"}
        devices = await tables.select(Select("register_changes", {"kind": "device", **year}))
        return devices, await tables.select(Select("register_changes", {"kind": "endpoint", **year}))

    return asyncio.run(run())


def test_every_decision_is_a_row_newest_first() -> None:
    devices, endpoints = expected = rows_after((0, 1, 2, 3, 4))
    assert [r["what"] for r in devices] == ["removed", "changed", "registered"]
    assert [r["what"] for r in endpoints] == ["withdrawn", "approved"]
    changed = devices[1]
    assert (changed["subject"], changed["actor"], changed["recorded"]) == ("CT1", "person:1", BY["recorded"])
    assert msgspec.json.decode(changed["before"], type=Device) == OLD
    assert msgspec.json.decode(changed["after"], type=Device) == NEW
    assert (devices[0]["after"], devices[2]["before"]) == ("", "")
    for order in permutations(range(5)):
        assert rows_after(order) == expected
    assert rows_after((0, 1, 2, 3, 4, 4, 3, 2, 1, 0)) == expected
