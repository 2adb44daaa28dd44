"""Rejection notes: Key Object Selection documents by which a modality or workstation takes images back. Pure.

IHE RAD TF-3 §4.66 (Imaging Object Change Management): the document's title is the reason, its Current Requested
Procedure Evidence Sequence names the instances. A note is in the study whose instances it names; what it names of
other studies is not followed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.corrections import QUALITY, REJECTION_CODES, RETENTION_EXPIRED, Correction
from schemas.errors import Invalid
from schemas.events import PackStored, StudyRejected
from schemas.identity import derived_id
from schemas.pack import InstanceLine, Manifest
from streams.effects import Emit
from streams.facts import rfc3339_of

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
REASON = "rejection-note"
SCHEME = "DCM"

_header = msgspec.json.Decoder(dict[str, Any])


def found(manifest: Manifest) -> list[tuple[str, str]]:
    """(SOP Instance UID, code) of the rejection notes of a pack that name instances of its study."""
    notes = (line for line in manifest.instances if line.sop_class == KEY_OBJECT_SELECTION)
    told = ((line, _decoded(line)) for line in notes)
    return [(line.sop_uid, code) for line, h in told if (code := _code(h)) and _instances(h, line.study_uid)]


def rejections(event: PackStored, offset: int, log_ms: int, notes: list[tuple[str, str]]) -> list[Emit]:
    """The rejections that notes say; deciding again gives the same events, a note that comes again the same ids."""
    emits = []
    for sop_uid, code in notes:
        id = derived_id("study.rejected", event.study_uid, sop_uid)
        rejected = StudyRejected(
            correction_id=id,
            study_uid=event.study_uid,
            actor=f"{event.door}:{event.gateway}",
            reason=REASON,
            recorded=rfc3339_of(log_ms),
            code=code,
            scope="instances",
            bucket=event.bucket,
            note_sop_uid=sop_uid,
            note_offset=offset,
            manifest_key=event.manifest_key,
            manifest_sha256=event.manifest_sha256,
        )
        emits.append(Emit(rejected, id, event.study_uid))
    return emits


def correction(event: StudyRejected, manifest: Manifest) -> Correction:
    """What a note decides. Raises Invalid(`rejection-note-missing`) when it is not in the manifest."""
    line = next((i for i in manifest.instances if i.sop_uid == event.note_sop_uid), None)
    if line is None:
        raise Invalid("rejection-note-missing")
    uids = _instances(_decoded(line), event.study_uid)
    if not uids:
        raise Invalid("rejection-note-empty")  # or it would be taken for one of the whole study
    if event.code != QUALITY:
        # Of all but those for quality, the note is hidden with what it rejects.
        uids.append(line.sop_uid)
    return Correction(
        type="study.rejected",
        code=event.code,
        sop_uids=uids,
        # What comes again after its retention has ended is kept anew; what was wrong stays hidden.
        until=event.note_offset if event.code == RETENTION_EXPIRED else None,
    )


def _decoded(line: InstanceLine) -> dict[str, Any]:
    try:
        return _header.decode(line.header)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("manifest-header") from e


def _code(header: dict[str, Any]) -> str:
    """The code of the title (0040,A043) if it is one of a rejection; "" for any other document."""
    for title in _items(header, "0040A043"):
        code = _text(title, "00080100")
        if code in REJECTION_CODES and _text(title, "00080102") == SCHEME:
            return code
    return ""


def _instances(header: dict[str, Any], study_uid: str) -> list[str]:
    """SOP Instance UIDs of the evidence (0040,A375) in a study."""
    uids = (
        _text(sop, "00081155")
        for study in _items(header, "0040A375")
        if _text(study, "0020000D") == study_uid
        for series in _items(study, "00081115")
        for sop in _items(series, "00081199")
    )
    return [uid for uid in dict.fromkeys(uids) if uid]


def _items(dataset: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _text(dataset: dict[str, Any], tag: str) -> str:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""
