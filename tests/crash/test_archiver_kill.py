"""SIGKILL of the archiver in each gap between its steps: one locked copy, one event each, whatever was done before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.objects import S3Objects
from infra.ports import Row, Select
from infra.settings import Settings
from schemas.events import ConflictFound, PackArchived, PackStored
from tests.crash.streams_child import STARTED, Streams, wait_for
from tests.local_stack import LocalStack

pytestmark = [pytest.mark.connected, pytest.mark.slow]

POINTS = ("archiver.compared", "objects.after-copy", "objects.after-verify", "objects.after-lock", "archiver.copied")


@pytest.fixture(scope="module")
def streams(stack: LocalStack) -> Iterator[Streams]:
    """With a worker that runs, and nothing left to archive."""
    made = Streams(stack)
    with made.running():
        first = made.pack(f"1.2.80.{STARTED}")
        with made.running("archiver"):
            wait_for(lambda: archived(made, first), 120)
        yield made
    made.kafka.close()


def row(streams: Streams, event: PackStored) -> Row:
    """Of its pack."""
    found = streams.select(Select("packs", {"pack_id": event.pack_id}))
    return found[0] if found else {}


def archived(streams: Streams, event: PackStored) -> bool:
    return bool(row(streams, event).get("archive_version_id"))


def test_killed_between_each_two_steps_in_turn(streams: Streams, admin: Settings) -> None:
    uid = f"1.2.81.{STARTED}"
    packs = [streams.pack(uid, "7"), streams.pack(uid, "7")]  # two contents under one SOP Instance UID
    for point in POINTS:
        assert streams.start(point, "archiver").wait(90) == -9, f"it has to reach {point}"
    with streams.running("archiver"):
        wait_for(lambda: all(archived(streams, p) for p in packs))
    assert len(set(streams.emitted(ConflictFound, uid))) == 1
    assert len(set(streams.emitted(PackArchived, uid))) == 2
    objects = S3Objects(admin)
    for pack in packs:
        where = row(streams, pack)
        bucket, key = where["archive_bucket"], where["archive_key"]
        assert objects.versions(bucket, key) == [where["archive_version_id"]], "one copy"
        info = objects.head(bucket, key, version_id=where["archive_version_id"])
        assert info.retain_until
        assert info.metadata["sha256"] == pack.pack_sha256
