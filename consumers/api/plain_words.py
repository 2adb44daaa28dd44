"""An access in plain words, Arabic and English: what a patient is told of who looked at their file. Pure.

The Arabic is made of nouns ("الاطّلاع على …"), so that no verb has to agree with somebody whose sex nobody knows. Roles
and purposes are those of `schemas.roles` and `consumers.api.access`, actions those of the routes
(`tests/unit/consumers/test_accesses.py` sees that none lacks words).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import Invalid

ARABIC, ENGLISH = "ar", "en"
LANGUAGES = (ARABIC, ENGLISH)

Words = Mapping[str, tuple[str, str]]
"""Code → (Arabic, English)."""

ROLES: Words = {
    "technician": ("فنّي أشعة", "a radiographer"),
    "clerk": ("موظف استقبال", "a clerk"),
    "radiologist": ("طبيب أشعة", "a radiologist"),
    "resident": ("طبيب أشعة مقيم", "a resident in radiology"),
    "doctor": ("طبيب", "a doctor"),
    "patient": ("صاحب الملف", "the patient"),
    "administrator": ("مسؤول نظام الأشعة", "an administrator of the archive"),
    "officer": ("مسؤول حماية البيانات", "the data protection officer"),
    "analyst": ("محلّل بيانات", "an analyst"),
    "ministry": ("وزارة الصحة", "the Ministry of Health"),
    "gateway": ("نظام المستشفى", "a hospital's system"),
    "ehr": ("السجل الصحي الإلكتروني", "the electronic health record"),
    "operator": ("مشغّل النظام", "an operator of the archive"),
    "local": ("مستخدم داخل المنشأة", "somebody at the facility"),
}

ACTIONS: Words = {
    "search": ("بحث ظهر فيه الفحص", "saw the study in a search"),
    "query": ("بحث ظهر فيه الفحص", "saw the study in a search"),
    "worklist": ("عرض الفحص المطلوب على جهاز الأشعة", "was shown the order on an imaging device"),
    "retrieve": ("الاطّلاع على صور الفحص", "looked at the images of the study"),
    "retrieve-frames": ("الاطّلاع على صور الفحص", "looked at the images of the study"),
    "retrieve-rendered": ("الاطّلاع على صور الفحص", "looked at the images of the study"),
    "retrieve-thumbnail": ("الاطّلاع على صورة مصغّرة من الفحص", "saw a small picture of the study"),
    "retrieve-bulkdata": ("الاطّلاع على بيانات الفحص", "read data of the study"),
    "retrieve-original": ("تنزيل الملفات الأصلية للفحص", "fetched the study's original files"),
    "read-metadata": ("الاطّلاع على بيانات الفحص", "read data of the study"),
    "read-status": ("الاطّلاع على حالة الفحص", "looked at where the study stands"),
    "read-order": ("قراءة طلب الفحص", "read the order"),
    "read-report": ("قراءة تقرير الأشعة", "read the report"),
    "read-waiting": ("مراجعة قائمة الفحوص التي تنتظر التقرير", "looked at the list of studies that wait for a report"),
    "read-draft": ("متابعة كتابة تقرير لم يُوقَّع بعد", "went on with a report that is not signed yet"),
    "read-inbox": ("مراجعة قائمة التقارير الجديدة لمرضاه", "looked at the list of new reports of their patients"),
    "read-criticals": ("متابعة نتيجة عاجلة", "followed up an urgent result"),
    "read-times": ("متابعة مدة إنجاز الفحص", "looked at how long the study took"),
    "read-patient": ("فتح ملف المريض", "opened the patient's file"),
    "read-accesses": ("مراجعة سجل الاطّلاع", "looked at who had seen the file"),
    "read-corrections": ("مراجعة تصحيحات الفحص", "looked at corrections of the study"),
    "read-conflicts": ("مراجعة نسخ متعارضة من الفحص", "looked at copies that contradict each other"),
    "read-rejections": ("مراجعة صور لم تُقبل", "looked at images that were not accepted"),
    "read-orders": ("الاطلاع على طلبات الفحص", "looked at what was ordered"),
    "read-arrivals": ("متابعة وصول الفحوص", "looked at what had arrived"),
    "read-proposals": ("مراجعة تطابق هويات المرضى", "looked at who might be the same patient"),
    "read-changes": ("متابعة وصول الفحوص", "followed what arrived"),
    "follow-changes": ("متابعة وصول الفحوص", "followed what arrived"),
    "dicom-get": ("نقل صور الفحص إلى جهاز عرض", "fetched the images of the study to a workstation"),
    "dicom-move": ("إرسال صور الفحص إلى جهاز آخر", "had the images of the study sent to another system"),
    "open-link": ("فتح الرابط الخاص بالملف", "opened the file by the patient's own link"),
    "invite-patient": ("إعطاء المريض رابطًا إلى ملفه", "gave the patient a link to their file"),
    "uninvite-patient": ("إلغاء رابط المريض", "took the patient's link back"),
    "read-results-waiting": (
        "مراجعة تقارير وصلت ولم يُعرف فحصها",
        "looked at reports that arrived and wait for their study",
    ),
    "read-invitations": ("مراجعة روابط المريض", "looked at the patient's links"),
    "emergency-search": ("العثور على المريض بالاسم في حالة طارئة", "found the patient by name in an emergency"),
    "break-glass": ("فتح الملف في حالة طارئة", "opened the file in an emergency"),
}
OTHER_ACTION = ("الاطّلاع على الملف", "looked at the file")

PURPOSES: Words = {
    "TREAT": ("للعلاج", "for treatment"),
    "ETREAT": ("لعلاج طارئ", "for emergency treatment"),
    "CAREMGT": ("لتنظيم الرعاية", "to organise care"),
    "PATRQT": ("بطلب من المريض", "at the patient's request"),
    "HOPERAT": ("لتسيير عمل المستشفى", "for the hospital's work"),
    "HSYSADMIN": ("لإدارة الأرشيف", "to run the archive"),
    "HQUALIMP": ("لتحسين الجودة", "to improve quality"),
    "PATSFTY": ("لسلامة المريض", "for the patient's safety"),
    "HCOMPL": ("للرقابة على حماية البيانات", "to check that data are protected"),
    "HRESCH": ("للبحث العلمي", "for research"),
    "CLINTRCH": ("لتجربة سريرية", "for a clinical trial"),
    "PUBHLTH": ("للصحة العامة", "for public health"),
    "HPAYMT": ("للدفع", "for payment"),
    "COVERAGE": ("للتأمين", "for insurance"),
    "HMARKT": ("للتسويق", "for marketing"),
}
OTHER_PURPOSE = ("لغرض آخر", "for another purpose")

DOORS: Words = {
    "http": ("عبر برنامج متصل", "through a program"),
    "dimse": ("من جهاز أشعة أو محطة عرض", "from a modality or a workstation"),
    "page": ("من صفحات الأرشيف", "on the archive's pages"),
}

DENIED = ("رُفض الطلب", "was refused")
EMERGENCY = ("دون علاقة علاجية مسجّلة، مع ذكر السبب", "without a recorded relation, stating the reason")
TIMES = ("عدد المرات", "times")


def language_of(asked: str, accepted: str) -> str:
    """`ar` or `en`, as a query parameter says or else the header Accept-Language; "" if neither says anything.

    Raises Invalid(`option-lang`) for a parameter that is neither.
    """
    if asked:
        if asked not in LANGUAGES:
            raise Invalid("option-lang", "lang must be ar or en")
        return asked
    for part in accepted.split(","):
        found = part.partition(";")[0].strip().lower().partition("-")[0]
        if found in LANGUAGES:
            return found
    return ""


def words(row: Mapping[str, Any], language: str) -> dict[str, str]:
    """A row of a list of accesses: who, what, why, how, and all in one sentence."""
    n = LANGUAGES.index(language)
    who = ROLES.get(row["role"] or "", ROLES["local"])[n]
    what = ACTIONS.get(row["action"] or "", OTHER_ACTION)[n]
    why = PURPOSES.get(row["purpose"] or "", OTHER_PURPOSE)[n]
    how = DOORS.get(row["via"] or "", ("", ""))[n]
    told = {"who": who, "what": what, "why": why, "how": how}
    outcome = row["outcome"]
    if outcome == "emergency":
        told["outcome"] = EMERGENCY[n]
    elif outcome == "denied":
        told["outcome"] = DENIED[n]
    told["text"] = (_arabic if language == ARABIC else _english)(told, row)
    return told


def _arabic(told: Mapping[str, str], row: Mapping[str, Any]) -> str:
    parts = [f"{told['who']}: {told['what']} {told['why']}", told["how"], told.get("outcome", "")]
    if (uses := row.get("uses") or 0) > 1:
        parts.append(f"{TIMES[0]}: {uses}")
    return "، ".join(p for p in parts if p) + "."


def _english(told: Mapping[str, str], row: Mapping[str, Any]) -> str:
    who = told["who"][0].upper() + told["who"][1:]
    if row["outcome"] == "denied":
        parts = [f"{who} asked {told['why']}", told["how"], "and was refused"]
    else:
        parts = [f"{who} {told['what']} {told['why']}", told["how"], told.get("outcome", "")]
    if (uses := row.get("uses") or 0) > 1:
        parts.append(f"{uses} {TIMES[1]}")
    return ", ".join(p for p in parts if p) + "."
