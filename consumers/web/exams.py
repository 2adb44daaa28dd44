"""The examinations that a clerk chooses from: code, modality, body part (PS3.16 Annex L), in two languages. Data.

The codes are the archive's own (`urn:sijil:exam`); a hospital with a catalogue of its own orders by FHIR or HL7 v2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SCHEME: Final = "urn:sijil:exam"
MODALITIES: Final = ("DX", "CT", "MR", "US", "MG", "NM", "PT", "XA", "RF", "BMD")
PRIORITIES: Final = ("routine", "urgent", "stat")


@dataclass(frozen=True)
class Exam:
    """One of them."""

    code: str
    modality: str
    body_part: str
    ar: str
    en: str

    def text(self, language: str) -> str:
        """As it is called."""
        return self.ar if language == "ar" else self.en


_LINES: Final = """
DX-CHEST | CHEST | أشعة عادية على الصدر | X-ray chest
DX-CSPINE | CSPINE | أشعة عادية على فقرات الرقبة | X-ray cervical spine
DX-LSPINE | LSPINE | أشعة عادية على الفقرات القطنية | X-ray lumbar spine
DX-PELVIS | PELVIS | أشعة عادية على الحوض | X-ray pelvis
DX-ABDOMEN | ABDOMEN | أشعة عادية على البطن | X-ray abdomen
DX-SHOULDER | SHOULDER | أشعة عادية على الكتف | X-ray shoulder
DX-HAND | HAND | أشعة عادية على اليد | X-ray hand
DX-KNEE | KNEE | أشعة عادية على الركبة | X-ray knee
DX-ANKLE | ANKLE | أشعة عادية على الكاحل | X-ray ankle
DX-FOOT | FOOT | أشعة عادية على القدم | X-ray foot
CT-HEAD | HEAD | أشعة مقطعية على المخ | CT head
CT-SINUS | SINUS | أشعة مقطعية على الجيوب الأنفية | CT sinuses
CT-CHEST | CHEST | أشعة مقطعية على الصدر | CT chest
CT-ABDOMENPELVIS | ABDOMENPELVIS | أشعة مقطعية على البطن والحوض | CT abdomen and pelvis
CT-LSPINE | LSPINE | أشعة مقطعية على الفقرات القطنية | CT lumbar spine
CT-HEART | HEART | أشعة مقطعية على شرايين القلب | CT coronary arteries
MR-HEAD | HEAD | رنين مغناطيسي على المخ | MRI brain
MR-CSPINE | CSPINE | رنين مغناطيسي على فقرات الرقبة | MRI cervical spine
MR-LSPINE | LSPINE | رنين مغناطيسي على الفقرات القطنية | MRI lumbar spine
MR-KNEE | KNEE | رنين مغناطيسي على الركبة | MRI knee
MR-SHOULDER | SHOULDER | رنين مغناطيسي على الكتف | MRI shoulder
MR-ABDOMEN | ABDOMEN | رنين مغناطيسي على البطن | MRI abdomen
US-ABDOMENPELVIS | ABDOMENPELVIS | موجات فوق صوتية على البطن والحوض | Ultrasound abdomen and pelvis
US-UTERUS | UTERUS | موجات فوق صوتية لمتابعة الحمل | Ultrasound obstetric
US-THYROID | THYROID | موجات فوق صوتية على الغدة الدرقية | Ultrasound thyroid
US-BREAST | BREAST | موجات فوق صوتية على الثدي | Ultrasound breast
MG-BREAST | BREAST | أشعة على الثدي (ماموجرام) | Mammography
BMD-HIP | HIP | قياس كثافة العظام | Bone density
"""


def _exam(line: str) -> Exam:
    code, body_part, ar, en = (part.strip() for part in line.split("|"))
    return Exam(code, code.partition("-")[0], body_part, ar, en)


EXAMS: Final[Mapping[str, Exam]] = {e.code: e for e in map(_exam, _LINES.strip().splitlines())}
