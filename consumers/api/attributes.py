"""The attributes a search may name, by level: those of a study's, series' or instance's answer, and of its header.

PS3.18 §10.6.1.2 (required and optional matching), §10.6.3 (what an answer shows). What an answer has is named here;
the rest is what `schemas.levels` keeps of headers. An element of a sequence's items is named by its path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword

from schemas.errors import Invalid
from schemas.levels import CHARACTER_SET, INSTANCE_TAGS, SERIES_TAGS, STUDY_TAGS

_HEX = re.compile(r"[0-9A-Fa-f]{8}\Z")


class Level(IntEnum):
    """Query/retrieve levels, from the top."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3


@dataclass(frozen=True)
class Attribute:
    """One attribute that can be matched."""

    keyword: str
    tag: str
    """8 upper-case hex digits; for an element of a sequence's items, the path: `00400275.00400009`."""
    vr: str
    level: Level

    @property
    def top(self) -> str:
        """The tag of the level's own element."""
        return self.tag.partition(".")[0]


def _rows(level: Level, text: str) -> list[Attribute]:
    """`keyword tag VR` a line."""
    words = (line.split() for line in text.split("\n"))
    return [Attribute(w[0], w[1], w[2], level) for w in words if w]


_ANSWERED = (
    *_rows(
        Level.STUDY,
        """
        StudyInstanceUID 0020000D UI
        PatientName 00100010 PN
        PatientID 00100020 LO
        PatientBirthDate 00100030 DA
        PatientSex 00100040 CS
        StudyDate 00080020 DA
        StudyTime 00080030 TM
        AccessionNumber 00080050 SH
        ReferringPhysicianName 00080090 PN
        StudyDescription 00081030 LO
        StudyID 00200010 SH
        ModalitiesInStudy 00080061 CS
        SOPClassesInStudy 00080062 UI
        NumberOfStudyRelatedSeries 00201206 IS
        NumberOfStudyRelatedInstances 00201208 IS
        """,
    ),
    *_rows(
        Level.SERIES,
        """
        SeriesInstanceUID 0020000E UI
        Modality 00080060 CS
        SeriesNumber 00200011 IS
        SeriesDescription 0008103E LO
        BodyPartExamined 00180015 CS
        NumberOfSeriesRelatedInstances 00201209 IS
        """,
    ),
    *_rows(
        Level.INSTANCE,
        """
        SOPInstanceUID 00080018 UI
        SOPClassUID 00080016 UI
        InstanceNumber 00200013 IS
        AvailableTransferSyntaxUID 00083002 UI
        """,
    ),
)


def _of_headers() -> list[Attribute]:
    """What headers have beside. Of an attribute of two levels the upper one's is asked."""
    known = {a.tag for a in _ANSWERED} | {CHARACTER_SET}
    found: list[Attribute] = []
    for level, tags in ((Level.STUDY, STUDY_TAGS), (Level.SERIES, SERIES_TAGS), (Level.INSTANCE, INSTANCE_TAGS)):
        for tag in tags:
            if tag not in known:
                known.add(tag)
                found.append(Attribute(keyword_for_tag(int(tag, 16)), tag, vr_of(tag), level))
    return found


def vr_of(tag: str) -> str:
    """VR by the dictionary; `UN` for one it does not have."""
    number = int(tag, 16)
    return dictionary_VR(number).split(" or ")[0] if dictionary_has_tag(number) else "UN"


ATTRIBUTES: tuple[Attribute, ...] = (*_ANSWERED, *_of_headers())
BY_KEYWORD = {a.keyword: a for a in ATTRIBUTES}
BY_TAG = {a.tag: a for a in ATTRIBUTES}
IDENTIFIERS = frozenset(
    "PatientID IssuerOfPatientID OtherPatientIDs AccessionNumber StudyID AdmissionID PerformedProcedureStepID"
    " ScheduledProcedureStepID RequestedProcedureID StationName".split()
)
"""Codes given by machines: their case means something."""
PATH_MAX = 4


def find(name: str) -> Attribute:
    """The attribute of a keyword, a tag, or a path of them (`RequestAttributesSequence.ScheduledProcedureStepID`).

    Raises Invalid(`unknown-attribute`, `attribute-not-searchable`).
    """
    found = BY_KEYWORD.get(name) or BY_TAG.get(name.upper())
    if found is not None and found.vr != "SQ":
        return found
    tags = [tag_of(part) for part in name.split(".")]
    top = BY_TAG.get(tags[0])
    if top is None or len(tags) > PATH_MAX:
        # Names that the standard does not know may be anything, also a value in the wrong place: they are not repeated.
        raise Invalid("attribute-not-searchable", f"this archive cannot search by {'.'.join(tags)}")
    if any(vr_of(tag) != "SQ" for tag in tags[:-1]) or vr_of(tags[-1]) == "SQ":
        raise Invalid("attribute-not-searchable", f"{'.'.join(tags)} does not lead to an attribute with a value")
    return Attribute(keyword_for_tag(int(tags[-1], 16)) or tags[-1], ".".join(tags), vr_of(tags[-1]), top.level)


def tag_of(name: str) -> str:
    """8 upper-case hex digits of a keyword or tag.

    Raises Invalid(`unknown-attribute`).
    """
    # Private elements (odd group) are in no dictionary.
    if _HEX.match(name) and (int(name, 16) >> 16 & 1 or dictionary_has_tag(int(name, 16))):
        return name.upper()
    tag = tag_for_keyword(name)
    if tag is None:
        raise Invalid("unknown-attribute", "a query parameter is neither an attribute of DICOM nor an option")
    return f"{tag:08X}"
