"""A storage commitment: what is asked for and what is answered, in DIMSE's form and in the web's. Pure.

DIMSE: PS3.4 Tables J.3-1 and J.3-2 with PS3.3 §C.14. Web: PS3.18 §13, Tables J.1-1 and J.2-1, as DICOM JSON; its
references come as a flat sequence or by study and series, and are answered in the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from pydicom import Dataset
from pydicom.sequence import Sequence

from schemas.errors import Invalid
from schemas.identity import check_uid

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""Its one well-known SOP Instance (PS3.4 §J.3.5)."""
REQUEST, SUCCESSFUL, FAILURES_EXIST = 1, 1, 2
"""Action Type of the request; Event Types of the result."""

# Failure Reason (0008,1197), PS3.3 §C.14.1.1.
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119
CLASS_NOT_SUPPORTED: Final = 0x0122
DUPLICATE_TRANSACTION: Final = 0x0131

REASONS: Final[Mapping[int, str]] = {
    PROCESSING_FAILURE: "what was received could not be archived within the days given to a storage commitment",
    NO_SUCH_INSTANCE: "the instance was never received, or was refused",
    CLASS_CONFLICT: "the instance is kept, under another SOP class",
    CLASS_NOT_SUPPORTED: "the SOP class is not one of storage",
}

_SOP_CLASS, _SOP_UID, _REASON = "00081150", "00081155", "00081197"
_REFERENCED, _FAILED = "00081199", "00081198"
_STUDIES, _FAILED_STUDIES, _SERIES = "00081110", "0008119B", "00081115"
_BY_CLASS, _INSTANCES = "00081112", "0008114A"
_STUDY_UID, _SERIES_UID = "0020000D", "0020000E"


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """An instance that is named. UIDs as they came."""

    sop_class: str
    sop_uid: str
    study_uid: str = ""
    """Where the request gives it."""
    series_uid: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """The final answer: each reference stands in one of the two."""

    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]
    """With the Failure Reason."""

    @property
    def event_type(self) -> int:
        """Of the N-EVENT-REPORT."""
        return FAILURES_EXIST if self.failed else SUCCESSFUL


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept on disk until it is answered."""

    transaction_uid: str
    references: tuple[Reference, ...]
    requested: str
    """RFC 3339."""
    ae_title: str = ""
    """Who gets the report; empty: it is asked for by HTTP."""
    address: str = ""
    """From where it was requested."""
    outcome: Outcome | None = None


# ------------------------------------------------------------------------------------------------ DIMSE


def of_information(information: Dataset) -> tuple[str, tuple[Reference, ...]]:
    """(Transaction UID, references) of an N-ACTION's information. Raises Invalid(`commitment-…`)."""
    uid = _text(information.get("TransactionUID"))
    references = tuple(
        Reference(_text(item.get("ReferencedSOPClassUID")), _text(item.get("ReferencedSOPInstanceUID")))
        for item in information.get("ReferencedSOPSequence") or ()
    )
    return _checked(uid, references)


def information_of(transaction: Transaction, outcome: Outcome, retrieve_ae: str) -> Dataset:
    """The information of the N-EVENT-REPORT. `retrieve_ae`: where to retrieve the instances; may be empty."""
    found = Dataset()
    found.TransactionUID = transaction.transaction_uid
    if retrieve_ae and outcome.committed:
        found.RetrieveAETitle = retrieve_ae
    if outcome.failed:
        found.FailedSOPSequence = Sequence(_item(r, reason) for r, reason in outcome.failed)
    if outcome.committed:
        found.ReferencedSOPSequence = Sequence(_item(r) for r in outcome.committed)
    return found


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class, reference.sop_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


# ------------------------------------------------------------------------------------------------ the web


def of_json(transaction_uid: str, body: bytes) -> tuple[str, tuple[Reference, ...]]:
    """(Transaction UID, references) of a request's payload. Raises Invalid(`commitment-…`)."""
    try:
        payload = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise Invalid("commitment-payload", "the payload is not JSON") from error
    module = payload[0] if isinstance(payload, list) and len(payload) == 1 else payload
    if not isinstance(module, dict):
        raise Invalid("commitment-payload", "the payload is one dataset in the DICOM JSON model")
    references = [Reference(_value(i, _SOP_CLASS), _value(i, _SOP_UID)) for i in _items(module, _REFERENCED)]
    for study in _items(module, _STUDIES):
        for series in _items(study, _SERIES):
            for group in _items(series, _BY_CLASS):
                of_class = _value(group, _SOP_CLASS)
                where = _value(study, _STUDY_UID), _value(series, _SERIES_UID)
                references += [Reference(of_class, _value(i, _SOP_UID), *where) for i in _items(group, _INSTANCES)]
    return _checked(transaction_uid, tuple(references))


def json_of(outcome: Outcome) -> bytes:
    """The Storage Commitment Response Module as DICOM JSON."""
    found: dict[str, Any] = {}
    flat = [r for r in outcome.committed if not r.study_uid]
    failed = [(r, reason) for r, reason in outcome.failed if not r.study_uid]
    if failed:
        found[_FAILED] = _sequence({**_uids(r), **_reason(reason)} for r, reason in failed)
    if flat:
        found[_REFERENCED] = _sequence(map(_uids, flat))
    if any(r.study_uid for r in outcome.committed):
        found[_STUDIES] = _by_study((r, {}) for r in outcome.committed if r.study_uid)
    if any(r.study_uid for r, _ in outcome.failed):
        found[_FAILED_STUDIES] = _by_study((r, _reason(reason)) for r, reason in outcome.failed if r.study_uid)
    return msgspec.json.encode(dict(sorted(found.items())))


def _by_study(members: Iterable[tuple[Reference, dict[str, Any]]]) -> dict[str, Any]:
    studies: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for r, more in members:
        group = studies.setdefault(r.study_uid, {}).setdefault(r.series_uid, {}).setdefault(r.sop_class, [])
        group.append({**_ui(_SOP_UID, r.sop_uid), **more})
    return _sequence(
        {
            **_ui(_STUDY_UID, study),
            _SERIES: _sequence(
                {
                    **_ui(_SERIES_UID, series),
                    _BY_CLASS: _sequence(
                        {**_ui(_SOP_CLASS, sop_class), _INSTANCES: _sequence(instances)}
                        for sop_class, instances in groups.items()
                    ),
                }
                for series, groups in all_series.items()
            ),
        }
        for study, all_series in studies.items()
    )


def _uids(reference: Reference) -> dict[str, Any]:
    return {**_ui(_SOP_CLASS, reference.sop_class), **_ui(_SOP_UID, reference.sop_uid)}


def _ui(tag: str, uid: str) -> dict[str, Any]:
    return {tag: {"vr": "UI", "Value": [uid]}}


def _reason(reason: int) -> dict[str, Any]:
    return {_REASON: {"vr": "US", "Value": [reason]}}


def _sequence(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def _items(module: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    element = module.get(tag)
    items = element.get("Value", []) if isinstance(element, dict) else []
    if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
        raise Invalid("commitment-payload", f"{tag} is no sequence")
    return items


def _value(module: Mapping[str, Any], tag: str) -> str:
    element = module.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return _text(values[0]) if isinstance(values, list) and values else ""


# ------------------------------------------------------------------------------------------------ both


def _checked(transaction_uid: str, references: tuple[Reference, ...]) -> tuple[str, tuple[Reference, ...]]:
    try:
        check_uid(transaction_uid)
    except Invalid as error:
        raise Invalid("commitment-transaction-uid", "the Transaction UID is missing or no UID") from error
    if not references:
        raise Invalid("commitment-empty", "no instance is referenced")
    if not all(r.sop_class and r.sop_uid for r in references):
        raise Invalid("commitment-reference", "a reference lacks its SOP class or instance")
    return transaction_uid, tuple(dict.fromkeys(references))
