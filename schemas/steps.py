"""Performed procedure steps (MPPS, PS3.4 Annex F) as they are written down: the document in S3 that an event names.

A document holds all that a device has said up to its version, as DICOM JSON. Names of patients and accession numbers
are in it, so never in the event (design, rule 3). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from schemas.dicom_json import Dataset
from schemas.errors import Invalid

IN_PROGRESS: Final = "IN PROGRESS"
OUTCOMES: Final[Mapping[str, str]] = {"COMPLETED": "completed", "DISCONTINUED": "discontinued"}
"""Final values of Performed Procedure Step Status (0040,0252) → `outcome` of an event."""

SCHEDULED_STEPS, PERFORMED_SERIES, STATUS = "00400270", "00400340", "00400252"
STUDY_UID, SERIES_UID, ACCESSION, REFERENCED_UID = "0020000D", "0020000E", "00080050", "00081155"
_LISTS: Final = ("00081140", "00400220")
"""Referenced Image Sequence; Referenced Non-Image Composite SOP Instance Sequence."""


class StepDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a step."""

    step_uid: str
    version: int
    site: str
    calling_ae: str
    recorded: str
    """RFC 3339, UTC."""
    dataset: Dataset

    @property
    def status(self) -> str:
        """Its Performed Procedure Step Status."""
        return value(self.dataset, STATUS)

    @property
    def ended(self) -> bool:
        """Whether it may change no more (PS3.4 §F.7.2.2.2)."""
        return self.status in OUTCOMES


_decoder = msgspec.json.Decoder(StepDocument)


def encode_step(document: StepDocument) -> bytes:
    """Its bytes; equal documents give equal ones."""
    return msgspec.json.encode(document, order="sorted")


def decode_step(data: bytes) -> StepDocument:
    """Raises Invalid(`step-damaged`)."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("step-damaged") from error


def document_key(step_uid: str, version: int) -> str:
    """Where a version lies in the bucket of documents."""
    return f"steps/{step_uid}/{version}.json"


def value(dataset: Mapping[str, Any], tag: str) -> str:
    """The first value of an element as text; empty where there is none."""
    values = dataset.get(tag, {}).get("Value") or [""]
    return "" if values[0] is None else str(values[0]).strip()


def items(dataset: Mapping[str, Any], tag: str) -> list[Dataset]:
    """The items of a sequence."""
    return [i for i in dataset.get(tag, {}).get("Value") or () if isinstance(i, dict)]


def study_uids(dataset: Mapping[str, Any]) -> list[str]:
    """Of the studies that the step is for, each once."""
    return _distinct(value(i, STUDY_UID) for i in items(dataset, SCHEDULED_STEPS))


def accessions(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Accession number → UID of its study: a group case has several of both."""
    found = ((value(i, ACCESSION), value(i, STUDY_UID)) for i in items(dataset, SCHEDULED_STEPS))
    return {accession: study for accession, study in found if accession and study}


def series_uids(dataset: Mapping[str, Any]) -> list[str]:
    """Of the series that the device has made."""
    return _distinct(value(i, SERIES_UID) for i in items(dataset, PERFORMED_SERIES))


def sop_uids(dataset: Mapping[str, Any]) -> list[str]:
    """Of the instances that the device says it has made."""
    series = items(dataset, PERFORMED_SERIES)
    return _distinct(value(i, REFERENCED_UID) for s in series for tag in _LISTS for i in items(s, tag))


def _distinct(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(t for t in texts if t))
