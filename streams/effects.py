"""What the pure core wants done: plain values, carried out by the shells.

Writes to the read models are `schemas.tables.Upsert` and `Delete`.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import Event


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish an event. `id` is derived from what decided it, so that deciding again gives the same event."""

    event: Event
    id: str
    subject: str


@dataclass(frozen=True, slots=True)
class CopyPack:
    """Copy a pack and its manifest into the archive bucket, locked until `retain_until` (RFC 3339)."""

    pack_id: str
    study_uid: str
    bucket: str
    """Where the pack lies now."""
    pack_key: str
    pack_size: int
    pack_sha256: str
    manifest_key: str
    manifest_sha256: str
    retain_until: str
    policy: str
    """Code of the rule that gave the date."""
