"""The answer to a STOW-RS request (PS3.18 §10.5.3, Annex I): status and body of what became of each instance. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from producers.identify import Named
from schemas import native_xml

OK, ACCEPTED, CONFLICT = 200, 202, 409
IMPORT_AGENT = "sijil-import"
"""How `sijil import` names itself in User-Agent: what it brings is marked as such."""

_RETRIEVE_URL = "00081190"
_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_SEQUENCE = "00081199"
_OTHER_FAILURES_SEQUENCE = "0008119A"
_FAILURE_REASON = "00081197"
_SOP_CLASS = "00081150"
_SOP_INSTANCE = "00081155"


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance that is kept."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An instance that is not."""

    named: Named
    reason: int
    """Failure Reason (0008,1197)."""


Outcome = Stored | Failed


def status(outcomes: Sequence[Outcome]) -> int:
    """PS3.18 Table 10.5.3-1: all stored, some, none."""
    stored = sum(isinstance(o, Stored) for o in outcomes)
    if stored == len(outcomes):
        return OK
    return ACCEPTED if stored else CONFLICT


def body(outcomes: Sequence[Outcome], base: str) -> bytes:
    """The Store Instances Response Module as DICOM JSON; `base` is the address of the DICOMweb service.

    References are written one by one: as objects, those of 50,000 instances would be 70 MB.
    """
    module = _module([o for o in outcomes if not isinstance(o, Stored)], base) | _study(outcomes, base)
    stored = bytearray()
    for o in outcomes:
        if isinstance(o, Stored):
            stored += b"," if stored else b'{"vr":"SQ","Value":['
            stored += msgspec.json.encode(_stored(o, base))
    if stored:
        stored += b"]}"
        module[_REFERENCED_SOP_SEQUENCE] = msgspec.Raw(stored)
    return msgspec.json.encode(dict(sorted(module.items())))


def xml_body(outcomes: Sequence[Outcome], base: str) -> bytes:
    """The same in the Native DICOM Model (PS3.19 §A.1)."""
    return native_xml.document(_module(outcomes, base))


def _module(outcomes: Sequence[Outcome], base: str) -> dict[str, Any]:
    answer = _study(outcomes, base)
    failed = [o for o in outcomes if isinstance(o, Failed)]
    # One whose UIDs are not known is not a reference to anything (PS3.18 §I.2.2).
    known = [o for o in failed if o.named.sop_uid and o.named.sop_class]
    unknown = [o for o in failed if not (o.named.sop_uid and o.named.sop_class)]
    if known:
        answer[_FAILED_SOP_SEQUENCE] = {"vr": "SQ", "Value": [_failed(o) for o in known]}
    stored = [_stored(o, base) for o in outcomes if isinstance(o, Stored)]
    if stored:
        answer[_REFERENCED_SOP_SEQUENCE] = {"vr": "SQ", "Value": stored}
    if unknown:
        reasons = [{_FAILURE_REASON: _value("US", o.reason)} for o in unknown]
        answer[_OTHER_FAILURES_SEQUENCE] = {"vr": "SQ", "Value": reasons}
    return answer


def _study(outcomes: Sequence[Outcome], base: str) -> dict[str, Any]:
    """Where the study is, if what is stored is of one."""
    studies = {o.study_uid for o in outcomes if isinstance(o, Stored)}
    return {_RETRIEVE_URL: _value("UR", f"{base}/studies/{studies.pop()}")} if len(studies) == 1 else {}


def _failed(o: Failed) -> dict[str, Any]:
    return {
        _SOP_CLASS: _value("UI", o.named.sop_class),
        _SOP_INSTANCE: _value("UI", o.named.sop_uid),
        _FAILURE_REASON: _value("US", o.reason),
    }


def _stored(o: Stored, base: str) -> dict[str, Any]:
    url = f"{base}/studies/{o.study_uid}/series/{o.series_uid}/instances/{o.sop_uid}"
    return {
        _SOP_CLASS: _value("UI", o.sop_class),
        _SOP_INSTANCE: _value("UI", o.sop_uid),
        _RETRIEVE_URL: _value("UR", url),
    }


def _value(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
