"""Where manifests are looked for."""

from __future__ import annotations

import asyncio

import pytest

from infra.memory import MemoryObjects
from schemas.errors import Invalid
from schemas.events import PackStored
from schemas.pack import Manifest
from streams.facts import Fact
from streams.material import Material
from tests.unit.streams.samples import T0, Pack


def manifests(objects: MemoryObjects, event: PackStored, archive: str) -> Manifest | Invalid:
    material = Material(objects, documents="sijil-documents", missing_s=0, archive=archive)
    try:
        fact = Fact("sijil.study.arrivals", 0, 0, T0, "id", event)
        return asyncio.run(material.manifests([fact]))[0]
    finally:
        material.close()


@pytest.mark.parametrize("archived", [True, False])
def test_a_manifest_that_is_gone_is_read_from_its_locked_copy(archived: bool) -> None:
    objects = MemoryObjects()
    event = Pack(0).put(objects)
    if archived:
        objects.copy_locked(
            (event.bucket, event.manifest_key),
            ("sijil-archive", event.manifest_key),
            sha256=event.manifest_sha256,
            retain_until="2099-01-01T00:00:00Z",
        )
    objects.delete(event.bucket, event.manifest_key)
    found = manifests(objects, event, "sijil-archive")
    if archived:
        assert isinstance(found, Manifest)
        assert found.pack.pack_id == event.pack_id
    else:
        assert isinstance(found, Invalid)
        assert found.reason == "manifest-missing"
