"""What a person asks to be corrected, as JSON, and the correction it is. Pure.

No message quotes a value: they are patient data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from schemas.corrections import (
    BY_KEYWORD,
    BY_TAG,
    PATIENT_TAGS,
    REJECTION_CODES,
    Correctable,
    Correction,
    Document,
    Scope,
    check_value,
)
from schemas.errors import Invalid
from schemas.events import (
    ConflictResolved,
    Count,
    Event,
    Id,
    Sha256,
    StudyCorrected,
    StudyReassigned,
    StudyRejected,
    StudyRestored,
    Uid,
)

COMMENT_MAX = 2000
SOP_UIDS_MAX = 10_000
DEFAULT_REASON = "correction"


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    id: Id
    """The client's: the same again is the same correction."""
    reason: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)] = DEFAULT_REASON
    comment: Annotated[str, msgspec.Meta(max_length=COMMENT_MAX)] = ""


class Correct(_Asked, frozen=True, kw_only=True, tag="correct"):
    """Attributes by keyword; of a series or an instance if it is named."""

    attributes: Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=len(BY_KEYWORD))]
    series_uid: Uid | None = None
    sop_uid: Uid | None = None


class Reassign(_Asked, frozen=True, kw_only=True, tag="reassign"):
    """The patient by keyword: what is not named is empty."""

    patient: Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=len(PATIENT_TAGS))]


class Resolve(_Asked, frozen=True, kw_only=True, tag="resolve"):
    """Which copy of an instance is served, by the SHA-256 that the list of conflicts gives."""

    sop_uid: Uid
    serve: Sha256
    second_offset: Count
    """Of the conflict, as the list gives it."""


class Reject(_Asked, frozen=True, kw_only=True, tag="reject"):
    """The study, a series of it, or instances."""

    code: str
    series_uid: Uid | None = None
    sop_uids: Annotated[list[Uid], msgspec.Meta(max_length=SOP_UIDS_MAX)] = []


class Restore(_Asked, frozen=True, kw_only=True, tag="restore"):
    """A rejection by the id of its correction, or all of the study."""

    rejection: Id | None = None


Asked = Correct | Reassign | Resolve | Reject | Restore
_decoder: msgspec.json.Decoder[Asked] = msgspec.json.Decoder(Asked)


def parse(body: bytes) -> Asked:
    """Raises Invalid(`correction-json`), which names the rule and the place."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as e:
        _, at, path = str(e).rpartition(" - at `")
        place = path.rstrip("`") if at else "$"
        # A key of `attributes` stands in the path of nothing: only names of our own do.
        raise Invalid("correction-json", f"the correction breaks its form at {place}") from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("correction-json", "the correction is no JSON object") from e


def correction(asked: Asked) -> Correction:
    """Raises Invalid: `correction-attribute`, `correction-value`, `correction-patient`, `correction-code`."""
    match asked:
        case Correct():
            scope = Scope.INSTANCE if asked.sop_uid else Scope.SERIES if asked.series_uid else Scope.STUDY
            return Correction(
                type="study.corrected",
                series_uid=asked.series_uid or "",
                sop_uid=asked.sop_uid or "",
                attributes=_checked(asked.attributes, scope),
            )
        case Reassign():
            named = _checked(asked.patient, Scope.PATIENT)
            if not named.get(BY_KEYWORD["PatientID"].tag):
                raise Invalid("correction-patient", "a study is reassigned to a patient with a PatientID")
            return Correction(type="study.reassigned", attributes={tag: named.get(tag, "") for tag in PATIENT_TAGS})
        case Resolve():
            return Correction(
                type="study.conflict-resolved",
                sop_uid=asked.sop_uid,
                served_sha256=asked.serve,
                as_of_offset=asked.second_offset,
            )
        case Reject():
            if asked.code not in REJECTION_CODES:
                raise Invalid("correction-code", f"code must be one of {', '.join(REJECTION_CODES)}")
            return Correction(
                type="study.rejected",
                code=asked.code,
                series_uid=asked.series_uid or "",
                sop_uids=list(dict.fromkeys(asked.sop_uids)),
            )
        case Restore():
            return Correction(type="study.restored", restores=asked.rejection or "")


def event(document: Document, bucket: str, key: str, size: int, sha256: str) -> Event:
    """The event that names a document."""
    said = document.correction
    who: dict[str, Any] = {
        "correction_id": document.id,
        "study_uid": document.study_uid,
        "actor": document.actor,
        "reason": document.reason,
        "recorded": document.recorded,
    }
    where: dict[str, Any] = {"bucket": bucket, "document_key": key, "document_size": size, "document_sha256": sha256}
    match said.type:
        case "study.corrected":
            return StudyCorrected(
                **who,
                **where,
                series_uid=said.series_uid or None,
                sop_uid=said.sop_uid or None,
                tags=sorted(said.attributes),
            )
        case "study.reassigned":
            return StudyReassigned(**who, **where)
        case "study.conflict-resolved":
            return ConflictResolved(
                **who,
                **where,
                sop_uid=said.sop_uid,
                served_sha256=said.served_sha256,
                as_of_offset=said.as_of_offset,
            )
        case "study.rejected":
            return StudyRejected(
                **who,
                **where,
                code=said.code,
                scope="instances" if said.sop_uids else "series" if said.series_uid else "study",
                series_uid=said.series_uid or None,
                instances=len(said.sop_uids),
            )
        case _:
            return StudyRestored(**who, **where, restores=said.restores or None)


def _checked(values: Mapping[str, str], scope: Scope) -> dict[str, str]:
    """Tag → value."""
    found = {}
    for name, value in values.items():
        attribute = _attribute(name)
        if attribute.scope is not scope and not (scope is Scope.STUDY and attribute.scope is Scope.PATIENT):
            raise Invalid("correction-attribute", f"{attribute.keyword} is of the level {attribute.scope.name}")
        found[attribute.tag] = check_value(attribute, value)
    return found


def _attribute(name: str) -> Correctable:
    attribute = BY_KEYWORD.get(name) or BY_TAG.get(name.upper())
    if attribute is None:
        raise Invalid("correction-attribute", f"only these can be corrected: {', '.join(BY_KEYWORD)}")
    return attribute
