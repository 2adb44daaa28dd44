"""What a printed report says beside the report itself, Arabic and English. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from consumers.report_pdf.letterhead import Lang

Words = Mapping[str, tuple[str, str]]

LANGS: Final[tuple[Lang, Lang]] = ("ar", "en")

WORDS: Final[Words] = {
    "report": ("تقرير الأشعة", "Radiology report"),
    "name": ("اسم المريض", "Patient"),
    "id": ("رقم المريض", "Patient ID"),
    "born": ("تاريخ الميلاد", "Date of birth"),
    "sex": ("النوع", "Sex"),
    "sex.M": ("ذكر", "male"),
    "sex.F": ("أنثى", "female"),
    "sex.O": ("آخر", "other"),
    "examined": ("تاريخ الفحص", "Examined"),
    "examination": ("الفحص", "Examination"),
    "accession": ("رقم الطلب", "Accession no."),
    "referrer": ("الطبيب المُحوِّل", "Referred by"),
    "issued": ("تاريخ التقرير", "Reported"),
    "findings": ("النتائج", "Findings"),
    "impression": ("الخلاصة", "Impression"),
    "question": ("السؤال السريري", "Clinical question"),
    "technique": ("التقنية", "Technique"),
    "comparison": ("المقارنة", "Comparison"),
    "category": ("التصنيف", "Category"),
    "codes": ("الترميز", "Coded conclusion"),
    "dose": ("الجرعة الإشعاعية", "Radiation dose"),
    "text": ("التقرير", "Report"),
    "signed": ("التوقيع", "Signed"),
    "unsigned": ("لم يُوقَّع", "Not signed"),
    "version": ("الإصدار", "Version"),
    "page": ("صفحة", "Page"),
    "of": ("من", "of"),
    "verify": (
        "امسح الرمز للتأكد من أن هذا هو الإصدار الحالي وأن بصمته مطابقة",
        "Scan to see whether this version is current and its fingerprint matches",
    ),
    "fingerprint": ("البصمة", "Fingerprint"),
    "status.registered": ("طلب مسجَّل دون تقرير بعد", "Registered: there is no report yet"),
    "status.partial": ("تقرير جزئي: قد يتغيّر", "Partial report: it may change"),
    "status.preliminary": ("تقرير أولي لم يُعتمد بعد: قد يتغيّر", "Preliminary report, not yet approved: it may change"),
    "status.final": ("", ""),
    "status.amended": ("تقرير معدَّل: يحلّ محلّ ما سبقه", "Amended report: it replaces the one before"),
    "status.corrected": ("تقرير مصحَّح: يحلّ محلّ ما سبقه", "Corrected report: it replaces the one before"),
    "status.appended": ("تقرير أُضيف إليه: يحلّ محلّ ما سبقه", "Report with an addition: it replaces the one before"),
    "status.cancelled": ("أُلغي هذا التقرير: لا يُعمل به", "This report was cancelled: do not act on it"),
    "status.entered-in-error": ("صدر هذا التقرير خطأً: لا يُعمل به", "This report was issued in error: do not act on it"),
    "superseded": ("هذا إصدار قديم: صدر بعده إصدار أحدث", "This is an old version: a newer one has been issued"),
}


def word(key: str, lang: Lang) -> str:
    """Raises KeyError for what has no word."""
    return WORDS[key][LANGS.index(lang)]
