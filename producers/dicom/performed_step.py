"""Modality Performed Procedure Step (PS3.4 Annex F): what a device must say, may change, and how each answer is coded.

Pure: datasets come and go as DICOM JSON. What a device may not change any more is named to it and left as it was; the
rest of what it says counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from producers.dicom.header import header_json
from schemas import steps
from schemas.dicom_json import Dataset, ordered
from schemas.errors import Invalid, Permanent
from schemas.identity import check_uid

MPPS: Final = "1.2.840.10008.3.1.2.3.3"

# PS3.7 Annex C.
SUCCESS: Final = 0x0000
INVALID_VALUE: Final = 0x0106
ATTRIBUTES_IGNORED: Final = 0x0107
PROCESSING_FAILURE: Final = 0x0110
DUPLICATE: Final = 0x0111
NO_SUCH_INSTANCE: Final = 0x0112
NO_SUCH_CLASS: Final = 0x0118
MISSING_ATTRIBUTE: Final = 0x0120
MISSING_VALUE: Final = 0x0121
NOT_AUTHORIZED: Final = 0x0124
RESOURCE_LIMITATION: Final = 0x0213
NO_LONGER: Final = 0xA710
"""Error ID of an N-SET behind the end (PS3.4 Table F.7.2-2): the step may no longer be updated."""

STATUSES: Final[Mapping[int, str]] = {
    SUCCESS: "the step is kept; also for a request that came again with the same content",
    INVALID_VALUE: "a UID or the status is not one that is allowed here",
    ATTRIBUTES_IGNORED: "N-SET: kept, but the attributes named may not be changed any more and stay as they were",
    PROCESSING_FAILURE: "it could not be kept, try again; with Error ID A710: the step has ended and changes no more",
    DUPLICATE: "N-CREATE: this UID has another step",
    NO_SUCH_INSTANCE: "N-SET: no step of this UID was begun",
    NO_SUCH_CLASS: "the SOP Class is not Modality Performed Procedure Step",
    MISSING_ATTRIBUTE: "an attribute of type 1 is missing",
    MISSING_VALUE: "an attribute of type 1 is empty",
    NOT_AUTHORIZED: "this AE may not store, or the step is another site's",
    RESOURCE_LIMITATION: "too much waits to be sent on, try again later",
}

_REQUIRED: Final = ("00400270", "00400253", "00400241", "00400244", "00400245", steps.STATUS, "00080060")
"""Type 1 of N-CREATE (PS3.4 Table F.7.2-1): scheduled steps, ID, station AE, start date and time, status, modality."""
_REQUIRED_AT_END: Final = ("00400250", "00400251")
_FIXED: Final = frozenset(
    "00400270 00400253 00400241 00400242 00400243 00400244 00400245 00080060 00200010 00080016 00080018"
    " 00100010 00100020 00100021 00100030 00100040 00081120".split()
)
"""What N-SET may not change: the patient, what was scheduled, where and when it began."""
_STUDIES_MAX: Final = 16


class StepRefused(Permanent):
    """The request is answered with `status`; `tags` are the attributes at fault."""

    def __init__(self, status: int, tags: Iterable[str] = (), *, error_id: int | None = None) -> None:
        super().__init__(f"{status:04X}")
        self.status, self.tags, self.error_id = status, tuple(tags), error_id


def read(data: bytes, transfer_syntax: str) -> Dataset:
    """The attributes of a request. Raises StepRefused for what cannot be read."""
    try:
        found: Dataset = json.loads(header_json(data, transfer_syntax).json)
    except Invalid as error:
        raise StepRefused(INVALID_VALUE) from error
    return found


def check_begun(dataset: Mapping[str, Any]) -> None:
    """What N-CREATE says. Raises StepRefused."""
    _present(dataset, _REQUIRED)
    if steps.value(dataset, steps.STATUS) != steps.IN_PROGRESS:
        raise StepRefused(INVALID_VALUE, [steps.STATUS])
    scheduled = steps.items(dataset, steps.SCHEDULED_STEPS)
    if any(not steps.value(item, steps.STUDY_UID) for item in scheduled) or len(scheduled) > _STUDIES_MAX:
        raise StepRefused(MISSING_VALUE, [steps.STUDY_UID])
    _uids(steps.study_uids(dataset), steps.STUDY_UID)
    _uids(steps.series_uids(dataset), steps.SERIES_UID)


def changed(before: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[Dataset, tuple[str, ...]]:
    """The step after an N-SET, and the attributes of it that were left as they were. Raises StepRefused.

    An attribute that is named replaces the one before, sequences whole (PS3.7 §10.1.3).
    """
    ignored = tuple(tag for tag in said if tag in _FIXED and said[tag] != before.get(tag))
    after = ordered({**before, **{tag: element for tag, element in said.items() if tag not in _FIXED}})
    status = steps.value(after, steps.STATUS)
    if status != steps.IN_PROGRESS and status not in steps.OUTCOMES:
        raise StepRefused(INVALID_VALUE, [steps.STATUS])
    if status in steps.OUTCOMES:
        _present(after, _REQUIRED_AT_END)
    _uids(steps.series_uids(after), steps.SERIES_UID)
    _uids(steps.sop_uids(after), steps.REFERENCED_UID)
    return after, ignored


def _present(dataset: Mapping[str, Any], tags: Iterable[str]) -> None:
    wanted = list(tags)
    if missing := [tag for tag in wanted if tag not in dataset]:
        raise StepRefused(MISSING_ATTRIBUTE, missing)
    if empty := [tag for tag in wanted if not dataset[tag].get("Value")]:
        raise StepRefused(MISSING_VALUE, empty)


def _uids(uids: Iterable[str], tag: str) -> None:
    for uid in uids:
        try:
            check_uid(uid)
        except Invalid as error:
            raise StepRefused(INVALID_VALUE, [tag]) from error
