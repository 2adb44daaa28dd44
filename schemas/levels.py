"""Which attributes of a header each level of the read models keeps, and so what a search can ask of that level.

A level's header is the column `attributes` of its rows, DICOM JSON (PS3.18 Annex F).
"""

from __future__ import annotations

CHARACTER_SET = "00080005"

# PS3.18 §10.6.1.2 (what a search may return), PS3.3 C.7.1.1, C.7.2.1: patient and study.
STUDY_TAGS: tuple[str, ...] = (
    CHARACTER_SET, "00080020", "00080030", "00080050", "00080051", "00080080", "00080090", "00080201", "00081030",
    "00081032", "00081048", "00081060", "00100010", "00100020", "00100021", "00100024", "00100030", "00100032",
    "00100040", "00101000", "00101001", "00101010", "00101020", "00101030", "0020000D", "00200010", "00321032",
    "00321060", "00380010",
)  # fmt: skip
# PS3.3 C.7.3.1, C.7.5.1: series and equipment.
SERIES_TAGS: tuple[str, ...] = (
    CHARACTER_SET, "00080021", "00080031", "00080060", "00080070", "00080080", "0008103E", "00081010", "00081040",
    "00081050", "00081070", "00081090", "00180015", "00181030", "00185100", "00200060", "0020000E", "00200011",
    "00400244", "00400245", "00400253", "00400254", "00400275",
)  # fmt: skip
# PS3.3 C.12.1, C.7.6.1, C.7.6.2, C.7.6.3, C.7.6.6, C.17.2, C.11.10: instance.
INSTANCE_TAGS: tuple[str, ...] = (
    CHARACTER_SET, "00080008", "00080012", "00080013", "00080016", "00080018", "00080022", "0008002A", "00080023",
    "00080033", "00080032", "00180050", "00200012", "00200013", "00200032", "00200037", "00201041", "00280002",
    "00280004", "00280008", "00280010", "00280011", "00280030", "00280100", "00280101", "00280103", "0040A043",
    "0040A491", "0040A493", "00420010", "00700080",
)  # fmt: skip

PATIENT_STUDIES, PATIENT_SERIES, PATIENT_INSTANCES = "00201200", "00201202", "00201204"
PATIENT_TOTALS = frozenset({PATIENT_STUDIES, PATIENT_SERIES, PATIENT_INSTANCES})
"""How much a patient has: in no header, summed over the patient's file when a search asks."""
