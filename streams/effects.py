"""What the pure core wants done: plain values, carried out by the shells.

Writes to the read models are `schemas.tables.Upsert` and `Delete`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.events import Event, PatientAliased
from schemas.identity import derived_id


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish an event. `id` is derived from what decided it, so that deciding again gives the same event."""

    event: Event
    id: str
    subject: str


def aliased(aliases: Mapping[str, str]) -> list[Emit]:
    """Under which keys files are found as well: alias → key of the file."""
    return [
        Emit(PatientAliased(patient_key=key, alias=alias), derived_id(PatientAliased.TYPE, alias), key)
        for alias, key in aliases.items()
    ]


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
