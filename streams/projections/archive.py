"""pack.archived → where a pack's locked copy lies and until when."""

from __future__ import annotations

from schemas.events import PackArchived
from schemas.tables import Upsert, Write
from streams.facts import Fact


def archived(fact: Fact, event: PackArchived) -> list[Write]:
    """Columns of `packs` that only the topic `archive` feeds."""
    columns = {
        "archive_bucket": event.bucket,
        "archive_key": event.pack_key,
        "archive_version_id": event.version_id,
        "archive_manifest_key": event.manifest_key,
        "archive_manifest_version_id": event.manifest_version_id,
        "retain_until": event.retain_until,
        "retention_policy": event.policy,
    }
    return [Upsert("packs", {"pack_id": event.pack_id}, columns, fact.offset)]
