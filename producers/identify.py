"""From bytes to an instance that may be stored, or the reason why not. Pure.

What is checked is what a study stands and falls with: it is DICOM to its last byte, it is of a kind that is stored,
in a transfer syntax that others can read, and its four UIDs can be keys. Everything else is stored as it came.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from producers.dicom.contexts import is_storage
from producers.dicom.essentials import Essentials, essentials
from producers.dicom.part10 import parse_file_meta
from producers.dicom.syntaxes import TRANSFER_SYNTAXES
from producers.open_pack import Instance
from schemas.errors import Invalid
from schemas.identity import check_uid
from schemas.pack import Sender

MARK_FILE_META_DIFFERS = "file-meta-differs"
"""File Meta names another SOP class or instance than the dataset, which counts."""


@dataclass(frozen=True, slots=True)
class Named:
    """What is known of a refused instance; empty where there is nothing, or nothing that is a UID."""

    study_uid: str = ""
    sop_uid: str = ""
    sop_class: str = ""


class Refused(Invalid):
    """An instance that is not stored. `reason` is one of `producers.refusals`."""

    def __init__(self, reason: str, named: Named) -> None:
        super().__init__(reason)
        self.named = named


def identify_file(file: memoryview, *, sender: Sender, study_uid: str = "") -> Instance:
    """A Part 10 file, as STOW-RS brings it. `study_uid`: of the request's address, if it has one. Raises Refused."""
    named = Named()
    try:
        meta = parse_file_meta(file)
        named = Named("", _usable(meta.sop_instance_uid), _usable(meta.sop_class_uid))
        if meta.transfer_syntax not in TRANSFER_SYNTAXES:
            raise Invalid("transfer-syntax")
        found = essentials(file[meta.dataset_offset :], meta.transfer_syntax)
        named = _named(found)
        marks = list(meta.marks)
        if _differ(meta.sop_instance_uid, found.sop_instance_uid) or _differ(meta.sop_class_uid, found.sop_class_uid):
            marks.append(MARK_FILE_META_DIFFERS)
        if study_uid and found.study_uid != study_uid:
            raise Invalid("study-mismatch")
        return _instance(found, meta.transfer_syntax, meta.dataset_offset, sender, marks)
    except Invalid as refused:
        raise Refused(refused.reason, named) from refused


def identify_dataset(
    dataset: memoryview, *, transfer_syntax: str, dataset_offset: int, sop_class: str, sop_uid: str, sender: Sender
) -> Instance:
    """A dataset as C-STORE brings it, behind a File Meta of `dataset_offset` bytes; UIDs are those of the command.

    Raises Refused.
    """
    named = Named("", _usable(sop_uid), _usable(sop_class))
    try:
        found = essentials(dataset, transfer_syntax)
        named = Named(_usable(found.study_uid), named.sop_uid, named.sop_class)
        if _differ(sop_class, found.sop_class_uid):
            raise Invalid("sop-class-mismatch")
        if _differ(sop_uid, found.sop_instance_uid):
            raise Invalid("sop-instance-mismatch")
        return _instance(found, transfer_syntax, dataset_offset, sender, [])
    except Invalid as refused:
        raise Refused(refused.reason, named) from refused


def _instance(
    found: Essentials, transfer_syntax: str, dataset_offset: int, sender: Sender, marks: list[str]
) -> Instance:
    uids = (found.study_uid, found.series_uid, found.sop_instance_uid, found.sop_class_uid)
    for uid in uids:
        marks += check_uid(uid)
    if not is_storage(found.sop_class_uid):
        raise Invalid("sop-class-not-storage")
    study_uid, series_uid, sop_uid, sop_class = uids
    return Instance(
        study_uid=study_uid,
        series_uid=series_uid,
        sop_uid=sop_uid,
        sop_class=sop_class,
        transfer_syntax=transfer_syntax,
        dataset_offset=dataset_offset,
        sender=sender,
        marks=tuple(sorted({*marks, *found.marks})),
    )


def _named(found: Essentials) -> Named:
    return Named(_usable(found.study_uid), _usable(found.sop_instance_uid), _usable(found.sop_class_uid))


def _usable(uid: str) -> str:
    with suppress(Invalid):
        check_uid(uid)
        return uid
    return ""


def _differ(said: str, found: str) -> bool:
    return bool(said) and bool(found) and said != found
