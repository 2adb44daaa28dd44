"""The attributes a search may name, as a table: keyword, tag, VR, level and where the read models keep the value.

PS3.18 §10.6.1.2 (required and optional matching), §10.6.3 (what an answer shows). An attribute without a column is
looked up in the row's `attributes`, the header of its level as DICOM JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword

from schemas.errors import Invalid


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
    column: str = ""
    """Of the row of its level; empty: in `attributes`."""


def _rows(level: Level, text: str) -> list[Attribute]:
    """`keyword tag VR [column]` a line."""
    found = []
    for line in text.split("\n"):
        if words := line.split():
            found.append(Attribute(words[0], words[1], words[2], level, words[3] if len(words) > 3 else ""))
    return found


ATTRIBUTES: tuple[Attribute, ...] = (
    *_rows(
        Level.STUDY,
        """
        StudyInstanceUID 0020000D UI study_uid
        PatientName 00100010 PN patient_name
        PatientID 00100020 LO patient_id
        IssuerOfPatientID 00100021 LO
        PatientBirthDate 00100030 DA birth_date
        PatientSex 00100040 CS sex
        OtherPatientIDs 00101000 LO
        StudyDate 00080020 DA study_date
        StudyTime 00080030 TM study_time
        AccessionNumber 00080050 SH accession
        ReferringPhysicianName 00080090 PN referring
        StudyDescription 00081030 LO description
        StudyID 00200010 SH study_id
        ModalitiesInStudy 00080061 CS modalities
        SOPClassesInStudy 00080062 UI sop_classes
        NumberOfStudyRelatedSeries 00201206 IS series_count
        NumberOfStudyRelatedInstances 00201208 IS instance_count
        """,
    ),
    *_rows(
        Level.SERIES,
        """
        SeriesInstanceUID 0020000E UI series_uid
        Modality 00080060 CS modality
        SeriesNumber 00200011 IS series_number
        SeriesDescription 0008103E LO description
        BodyPartExamined 00180015 CS body_part
        NumberOfSeriesRelatedInstances 00201209 IS instance_count
        SeriesDate 00080021 DA
        SeriesTime 00080031 TM
        Laterality 00200060 CS
        ProtocolName 00181030 LO
        Manufacturer 00080070 LO
        ManufacturerModelName 00081090 LO
        InstitutionName 00080080 LO
        InstitutionalDepartmentName 00081040 LO
        StationName 00081010 SH
        PerformingPhysicianName 00081050 PN
        OperatorsName 00081070 PN
        PatientPosition 00185100 CS
        PerformedProcedureStepStartDate 00400244 DA
        PerformedProcedureStepStartTime 00400245 TM
        PerformedProcedureStepID 00400253 SH
        PerformedProcedureStepDescription 00400254 LO
        RequestAttributesSequence.ScheduledProcedureStepID 00400275.00400009 SH
        RequestAttributesSequence.RequestedProcedureID 00400275.00401001 SH
        """,
    ),
    *_rows(
        Level.INSTANCE,
        """
        SOPInstanceUID 00080018 UI sop_uid
        SOPClassUID 00080016 UI sop_class
        InstanceNumber 00200013 IS instance_number
        AvailableTransferSyntaxUID 00083002 UI transfer_syntax
        AcquisitionNumber 00200012 IS
        AcquisitionDate 00080022 DA
        AcquisitionTime 00080032 TM
        ContentDate 00080023 DA
        ContentTime 00080033 TM
        NumberOfFrames 00280008 IS
        Rows 00280010 US
        Columns 00280011 US
        BitsAllocated 00280100 US
        PhotometricInterpretation 00280004 CS
        """,
    ),
)

BY_KEYWORD = {a.keyword: a for a in ATTRIBUTES}
BY_TAG = {a.tag: a for a in ATTRIBUTES}


def find(name: str) -> Attribute:
    """The attribute of a keyword or tag. Raises Invalid(`unknown-attribute`, `attribute-not-searchable`)."""
    found = BY_KEYWORD.get(name) or BY_TAG.get(name.upper())
    if found is None:
        # Names that the standard does not know may be anything, also a value in the wrong place: they are not repeated.
        tag = tag_of(name)
        raise Invalid("attribute-not-searchable", f"this archive cannot search by {tag}")
    return found


def tag_of(name: str) -> str:
    """8 upper-case hex digits of a keyword or tag; of a path, those of its first element.

    Raises Invalid(`unknown-attribute`).
    """
    first = name.partition(".")[0]
    if len(first) == 8:
        try:
            number = int(first, 16)
        except ValueError:
            number = -1
        # Private elements (odd group) are in no dictionary.
        if number >= 0 and (number >> 16 & 1 or dictionary_has_tag(number)):
            return first.upper()
    tag = tag_for_keyword(first)
    if tag is None:
        raise Invalid("unknown-attribute", "a query parameter is neither an attribute of DICOM nor an option")
    return f"{tag:08X}"


def vr_of(tag: str) -> str:
    """VR by the dictionary; `UN` for one it does not have."""
    number = int(tag, 16)
    return dictionary_VR(number).split(" or ")[0] if dictionary_has_tag(number) else "UN"
