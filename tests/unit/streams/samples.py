"""Packs, manifests and records made of a few words, and dumps of tables to compare."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from infra.memory import MemoryObjects, MemoryTables
from infra.ports import Position, Stored
from schemas.envelope import encode
from schemas.events import Event, PackStored
from schemas.pack import InstanceLine, Manifest, PackLine, encode_manifest, manifest_key, pack_key
from schemas.patient_keys import Keys, PatientSecret, PatientSecrets
from schemas.tables import TABLES
from schemas.topics import topic_of
from streams.apply import fact_of
from streams.facts import Fact

T = TypeVar("T")
SECRET = b"a secret of thirty-two bytes.....".ljust(32, b".")
SECRETS = PatientSecrets(PatientSecret(1, SECRET))
KEYS = Keys(SECRETS, {})
BUCKET = "sijil-packs"
DOCUMENTS = "sijil-documents"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
T0 = 1_740_816_000_000
"""2025-03-01T08:00:00Z."""


def run(call: Coroutine[Any, Any, T]) -> T:
    """From a test that is no coroutine."""
    return asyncio.run(call)


def sha(text: str) -> str:
    """Some checksum."""
    return hashlib.sha256(text.encode()).hexdigest()


def pack_id(n: int) -> str:
    """The n-th pack's UUIDv7."""
    return str(UUID(int=(T0 + n) << 80 | 7 << 76 | 2 << 62 | n))


def dicom_json(**values: str) -> dict[str, Any]:
    """A header by tags (`t00100020="…"`); a PN for PatientName."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        tag = name[1:]
        if tag == "00100010":
            groups = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), value.split("="), strict=False))
            found[tag] = {"vr": "PN", "Value": [{k: v for k, v in groups.items() if v}]}
        else:
            found[tag] = {"vr": "LO", "Value": [value]} if value else {"vr": "LO"}
    return found


PERSON = {
    "t00100010": "Hassan^Mona=منى حسن",
    "t00100020": "P-77",
    "t00100030": "19800101",
    "t00100040": "F",
    "t00080020": "20250228",
    "t00080030": "101500",
    "t00080050": "A-1",
    "t00081030": "CT chest",
}


@dataclass
class Pack:
    """A pack of a study: `instances` are (series, sop, content) by short names."""

    n: int
    instances: Sequence[tuple[str, str, str]] = (("1", "1", "x"),)
    study: str = "1.2.3"
    site: str = "CAIRO-1"
    issuer: str = ""
    header: Mapping[str, str] = field(default_factory=lambda: PERSON)
    series: Mapping[str, str] = field(default_factory=dict)
    tar: bytes = b""
    """Its bytes, where somebody looks at them."""

    @property
    def manifest(self) -> Manifest:
        """As a gateway would write it."""
        line = PackLine(
            pack_id=pack_id(self.n),
            study_uid=self.study,
            site=self.site,
            issuer=self.issuer or self.site,
            gateway=f"/gateway/{self.site}/1",
            size=len(self.tar) or 1000 * len(self.instances),
            sha256=hashlib.sha256(self.tar).hexdigest() if self.tar else sha(f"pack {self.n}"),
            instances=len(self.instances),
            opened="2025-03-01T08:00:00Z",
            sealed="2025-03-01T08:00:01Z",
        )
        return Manifest(line, tuple(self._line(*i, n) for n, i in enumerate(self.instances)))

    def _line(self, series: str, sop: str, content: str, n: int) -> InstanceLine:
        header = {**self.header, "t00080060": "CT", "t00200011": series, "t00200013": str(n + 1), **self.series}
        return InstanceLine(
            sop_uid=f"{self.study}.{sop}",
            series_uid=f"{self.study}.{series}.0",
            study_uid=self.study,
            sop_class=CT,
            transfer_syntax=EXPLICIT,
            offset=512 + 1000 * n,
            length=900,
            dataset_offset=300,
            sha256=sha(content),
            header=msgspec.Raw(msgspec.json.encode(dicom_json(**header))),
        )

    def put(self, objects: MemoryObjects) -> PackStored:
        """The manifest in S3 and the event that names it."""
        manifest = self.manifest
        data = encode_manifest(manifest.pack, manifest.instances)
        id = manifest.pack.pack_id
        digest = hashlib.sha256(data).hexdigest()
        if self.tar:
            objects.put(BUCKET, pack_key(id, manifest.pack.encoding), self.tar, sha256=manifest.pack.sha256)
        objects.put(BUCKET, manifest_key(id), data, sha256=digest)
        return PackStored(
            pack_id=id,
            study_uid=self.study,
            site=self.site,
            gateway=manifest.pack.gateway,
            door="dimse",
            bucket=BUCKET,
            pack_key=pack_key(id, manifest.pack.encoding),
            pack_size=manifest.pack.size,
            pack_sha256=manifest.pack.sha256,
            manifest_key=manifest_key(id),
            manifest_size=len(data),
            manifest_sha256=digest,
            instances=len(self.instances),
            opened=manifest.pack.opened,
            sealed=manifest.pack.sealed,
        )


def stored(event: Event, offset: int, *, at_ms: int = T0, partition: int = 0, id: str = "") -> Stored:
    """A record as read back from the log."""
    record = encode(event, id=id or f"id-{partition}-{offset}", source="/test/1", time="2025-03-01T08:00:00Z")
    return Stored(Position(topic_of(event), partition, offset), at_ms, record.key, record.headers, record.value)


def fact(event: Event, offset: int, *, at_ms: int = T0, partition: int = 0, id: str = "") -> Fact:
    """The same, decoded."""
    return fact_of(stored(event, offset, at_ms=at_ms, partition=partition, id=id))


async def dump(tables: MemoryTables) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table with its write times, in a canonical order."""
    found = {}
    for table in TABLES:
        rows = [row async for row in tables.scan(table.name, writetime=True)]
        found[table.name] = sorted(rows, key=lambda r: [repr(r[c]) for c in table.primary_key])
    return found
