"""One row per pack of a study (`packs_by_study`): all that counting, deciding and comparing need of its members.

A summary holds 8-byte hashes of the SOP Instance UIDs, so that counts are exact across packs that overlap, and the
attributes of the pack's first instance. It is msgpack, a few hundred bytes and 8 more per instance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from schemas.errors import Defect
from schemas.tables import Upsert
from streams.facts import milliseconds

SUMMARY_VERSION = 1
HASH_BYTES = 8

TABLE = "packs_by_study"
COLUMNS = ("study_uid", "record_offset", "pack_id", "arrival", "site", "patient_key", "summary")


class StudyPart(msgspec.Struct, frozen=True, array_like=True):
    """Patient and study as the first instance of a pack has them. Text that is missing is ""."""

    patient_id: str
    issuer: str
    """Of the PatientID: the dataset's, else the sending site's."""
    patient_name: str
    """As sent, groups joined by `=`."""
    birth_date: str
    sex: str
    study_date: str
    """YYYYMMDD, or "" where there is no valid one."""
    study_time: str
    """HHMMSS and a fraction, without colons."""
    accession: str
    accession_issuer: str
    description: str
    referring: str
    study_id: str
    attributes: str
    """DICOM JSON."""


class SeriesPart(msgspec.Struct, frozen=True, array_like=True):
    """A series as the first of its instances in a pack has it."""

    series_uid: str
    modality: str
    number: int | None
    description: str
    body_part: str
    attributes: str
    """DICOM JSON."""
    sops: bytes
    """Hashes of its SOP Instance UIDs in this pack, HASH_BYTES each."""

    def hashes(self) -> set[bytes]:
        """The hashes one by one."""
        return {self.sops[i : i + HASH_BYTES] for i in range(0, len(self.sops), HASH_BYTES)}


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """What the column `summary` holds."""

    version: int
    pack_sha256: bytes
    """The first HASH_BYTES of it: tells a record that came twice from another pack under the same id."""
    size: int
    """Sum of the lengths in bytes of its Part 10 files."""
    study: StudyPart
    series: tuple[SeriesPart, ...]
    sop_classes: tuple[str, ...]
    marks: tuple[str, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Summary)


@dataclass(frozen=True, slots=True)
class PackRow:
    """A pack of a study. `offset` is that of its record in study.arrivals; rows are compared by it."""

    study_uid: str
    offset: int
    pack_id: str
    arrival_ms: int
    """Log time of its record."""
    site: str
    patient_key: str
    summary: Summary

    def write(self) -> Upsert:
        """The row."""
        return Upsert(
            TABLE,
            {"study_uid": self.study_uid, "record_offset": self.offset},
            {
                "pack_id": self.pack_id,
                "arrival": self.arrival_ms,
                "site": self.site,
                "patient_key": self.patient_key,
                "summary": _encoder.encode(self.summary),
            },
            self.offset,
        )

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> PackRow:
        """From a row with COLUMNS. Raises Defect when another version of Sijil has written it."""
        try:
            summary = _decoder.decode(row["summary"])
        except msgspec.DecodeError as e:
            raise Defect("packs_by_study holds a summary of another shape: rebuild the read models") from e
        if summary.version != SUMMARY_VERSION:
            raise Defect(f"packs_by_study holds summaries of version {summary.version}: rebuild the read models")
        return cls(
            row["study_uid"],
            row["record_offset"],
            row["pack_id"],
            milliseconds(row["arrival"]),
            row["site"],
            row["patient_key"],
            summary,
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """What a study has at a point of the log. Copies of an instance count once, their bytes each time."""

    packs: int
    series: int
    instances: int
    bytes: int


def contents(rows: Sequence[PackRow]) -> Contents:
    """Of all packs given."""
    parts = [s for row in rows for s in row.summary.series]
    return Contents(
        packs=len(rows),
        series=len({s.series_uid for s in parts}),
        instances=len(distinct(parts)),
        bytes=sum(row.summary.size for row in rows),
    )


def distinct(parts: Iterable[SeriesPart]) -> set[bytes]:
    """Hashes of all their instances."""
    return {h for part in parts for h in part.hashes()}


def sop_hash(sop_uid: str) -> bytes:
    """The hash a summary keeps. Two of a study's UIDs collide with a chance of 1 in 10^10 at 60,000 instances."""
    return hashlib.blake2b(sop_uid.encode(), digest_size=HASH_BYTES).digest()
