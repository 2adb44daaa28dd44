"""What an event says of objects in S3: each must be there, with that checksum, as long as the event is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.events import (
    AccessEmergency,
    AccessGranted,
    ConflictResolved,
    CriticalAcknowledged,
    DeadLetter,
    Event,
    PackArchived,
    PackStored,
    PatientStated,
    ReportIssued,
    StudyCorrected,
    StudyReassigned,
    StudyRejected,
    StudyRestored,
)


@dataclass(frozen=True)
class Reference:
    """An object that an event names."""

    kind: str
    """`pack`, `manifest`, `archive copy`, `archived manifest`, `report`, `read-back`, `correction`,
    `access list`, `reason of an emergency`, `dead letter`."""
    bucket: str
    """Empty: the bucket of documents."""
    key: str
    sha256: str
    size: int | None = None
    """None: the event does not say."""
    version_id: str = ""
    """Empty: the version that is served."""


def _stored(e: PackStored) -> tuple[Reference, ...]:
    return (
        Reference("pack", e.bucket, e.pack_key, e.pack_sha256, e.pack_size),
        Reference("manifest", e.bucket, e.manifest_key, e.manifest_sha256, e.manifest_size),
    )


def _archived(e: PackArchived) -> tuple[Reference, ...]:
    return (
        Reference("archive copy", e.bucket, e.pack_key, e.sha256, e.size, e.version_id),
        Reference("archived manifest", e.bucket, e.manifest_key, e.manifest_sha256, version_id=e.manifest_version_id),
    )


def _issued(e: ReportIssued) -> tuple[Reference, ...]:
    return (Reference("report", e.bucket, e.document_key, e.document_sha256, e.document_size),)


def _corrected(e: ConflictResolved | StudyCorrected | StudyReassigned | StudyRestored) -> tuple[Reference, ...]:
    return (Reference("correction", e.bucket, e.document_key, e.document_sha256, e.document_size),)


def _rejected(e: StudyRejected) -> tuple[Reference, ...]:
    if e.document_key is None or e.document_sha256 is None:
        return ()  # the note is an instance: its pack is named by study.pack-stored
    return (Reference("correction", e.bucket, e.document_key, e.document_sha256, e.document_size),)


def _read_back(e: CriticalAcknowledged) -> tuple[Reference, ...]:
    return (Reference("read-back", e.bucket, e.document_key, e.document_sha256, e.document_size),)


def _granted(e: AccessGranted) -> tuple[Reference, ...]:
    return (Reference("access list", "", e.shown_list, e.shown_list_sha256),) if e.shown_list_sha256 else ()


def _emergency(e: AccessEmergency) -> tuple[Reference, ...]:
    return (Reference("reason of an emergency", e.bucket, e.document_key, e.document_sha256, e.document_size),)


def _dead(e: DeadLetter) -> tuple[Reference, ...]:
    return (Reference("dead letter", "", e.payload_key, e.payload_sha256),)


def _stated_patient(e: PatientStated) -> tuple[Reference, ...]:
    return (Reference("patient", e.bucket, e.document_key, e.document_sha256, e.document_size),)


REFERENCES: dict[type[Event], Callable[[Any], tuple[Reference, ...]]] = {
    PackStored: _stored,
    PackArchived: _archived,
    PatientStated: _stated_patient,
    ReportIssued: _issued,
    CriticalAcknowledged: _read_back,
    ConflictResolved: _corrected,
    StudyCorrected: _corrected,
    StudyReassigned: _corrected,
    StudyRestored: _corrected,
    StudyRejected: _rejected,
    AccessGranted: _granted,
    AccessEmergency: _emergency,
    DeadLetter: _dead,
}
"""Event types that name objects with their checksums."""

TYPES: frozenset[str] = frozenset(e.TYPE for e in REFERENCES)


def references(event: Event) -> tuple[Reference, ...]:
    """The objects that an event names."""
    find = REFERENCES.get(type(event))
    return find(event) if find else ()
