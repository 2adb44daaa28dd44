"""A DICOM structured report (Basic Text, Enhanced) or encapsulated PDF as a report of its study. Pure.

The content tree (PS3.3 §C.17.3) becomes text: a container is a section, filed by its concept name (PS3.16 CID 7001,
7002); any other section stands in the findings under its own heading. What only points to images is left out: they are
in the study. The header is the manifest's DICOM JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.dicom_json import name_text
from schemas.report_content import DCM, LOINC, Coded, Content, Presented

BASIC_TEXT: Final = "1.2.840.10008.5.1.4.1.1.88.11"
ENHANCED: Final = "1.2.840.10008.5.1.4.1.1.88.22"
ENCAPSULATED_PDF: Final = "1.2.840.10008.5.1.4.1.1.104.1"
SR_CLASSES: Final = frozenset({BASIC_TEXT, ENHANCED})
CLASSES: Final = SR_CLASSES | {ENCAPSULATED_PDF}

DEPTH_MAX, ITEMS_MAX = 24, 10_000

SECTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("DCM", "121060"): "question",  # History
    ("DCM", "121062"): "question",  # Request
    ("DCM", "121064"): "technique",  # Current Procedure Descriptions
    ("DCM", "121065"): "technique",  # Procedure Description
    ("DCM", "121070"): "findings",
    ("DCM", "121071"): "findings",
    ("DCM", "121072"): "impression",  # Impressions
    ("DCM", "121073"): "impression",
    ("DCM", "121074"): "impression",  # Recommendations
    ("DCM", "121075"): "impression",
    ("DCM", "121076"): "impression",  # Conclusions
    ("DCM", "121077"): "impression",
    ("LN", "11329-0"): "question",  # History
    ("LN", "55115-0"): "question",  # Request
    ("LN", "55111-9"): "technique",
    ("LN", "59776-5"): "findings",
    ("LN", "18782-3"): "findings",
    ("LN", "19005-8"): "impression",
    ("LN", "18783-1"): "impression",  # Recommendations
    ("LN", "55110-1"): "impression",  # Conclusions
}
"""Concept name of a section (scheme, code) → member of Content."""
UNHEADED: Final = frozenset({"121070", "121071", "121072", "121073", "59776-5", "18782-3", "19005-8"})
"""Sections and texts whose heading says no more than where they stand."""
SYSTEMS: Final[Mapping[str, str]] = {
    "DCM": DCM,
    "LN": LOINC,
    "SCT": "http://snomed.info/sct",
    "I10": "http://hl7.org/fhir/sid/icd-10",
}
"""Coding Scheme Designator (PS3.16 §8) → FHIR's URI."""
LANGUAGE: Final = ("DCM", "121049")
CONTEXT: Final = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD"})
"""Relationships that say about the document, not what it says."""

Dataset = Mapping[str, Any]


def status_of(header: Dataset) -> str:
    """FHIR status: only what somebody has verified is final (Verification Flag, PS3.3 §C.17.2, §C.24.2)."""
    if _text(header, "0040A493") == "VERIFIED":
        return "final"
    return "partial" if _text(header, "0040A491") == "PARTIAL" else "preliminary"


def verifier_of(header: Dataset) -> str:
    """Name of the first who verified it, as it is read; "" if nobody is named."""
    observer = next(iter(_items(header, "0040A073")), {})
    return " ".join(name_text(_value(observer, "0040A075")).partition("=")[0].replace("^", " ").split())


def structured(header: Dataset, study_uid: str) -> Content:
    """What an SR says."""
    tree = _Tree()
    for item in _items(header, "0040A730"):
        tree.root(item)
    return Content(
        status=status_of(header),
        study_uids=(study_uid,),
        procedure=_coded(_first(header, "0040A043")),
        technique=tree.text("technique"),
        findings=tree.text("findings"),
        impression=tree.text("impression"),
        question=tree.text("question"),
        conclusions=tuple(tree.conclusions),
        language=tree.language,
    )


def encapsulated(header: Dataset, study_uid: str, pdf: bytes) -> Content:
    """A report that is a PDF."""
    title = _text(header, "00420010")
    concept = _coded(_first(header, "0040A043"))
    return Content(
        status=status_of(header),
        study_uids=(study_uid,),
        procedure=concept or Coded(text=title),
        presented=(Presented(content_type="application/pdf", data=pdf, title=title),),
    )


@dataclass
class _Tree:
    """Collects the text of a content tree."""

    sections: dict[str, list[str]] = field(default_factory=dict)
    conclusions: list[Coded] = field(default_factory=list)
    language: str = ""
    _items_left: int = ITEMS_MAX

    def text(self, section: str) -> str:
        """Of a section, paragraph by paragraph."""
        return "\n".join(self.sections.get(section, ())).strip()

    def root(self, item: Dataset) -> None:
        """A child of the root: a section, or a text that is one by itself."""
        name = _name(item)
        if name == LANGUAGE:
            self.language = _text(_first(item, "0040A168"), "00080100")
        if _text(item, "0040A010") in CONTEXT:
            return
        section = SECTIONS.get(name, "findings")
        lines = self.sections.setdefault(section, [])
        heading = _meaning(_first(item, "0040A043"))
        said_by_place = name[1] in UNHEADED or section in ("question", "technique")
        if heading and not said_by_place and _text(item, "0040A040") == "CONTAINER":
            lines.append(heading)
        lines += self._lines(item, section, heading, 0)

    def _lines(self, item: Dataset, section: str, under: str, depth: int) -> Iterator[str]:
        """The lines of an item and of what it contains, `under` a heading that need not be said again."""
        self._items_left -= 1
        if depth > DEPTH_MAX or self._items_left < 0:
            return
        kind, concept = _text(item, "0040A040"), _first(item, "0040A043")
        if kind == "CODE" and section == "impression" and (coded := _coded(_first(item, "0040A168"))):
            self.conclusions.append(coded)
        if value := _said(item, kind):
            label = "" if _name(item)[1] in UNHEADED else _meaning(concept)
            yield f"{label}: {value}" if label not in ("", under) else value
        elif kind == "CONTAINER" and depth and (heading := _meaning(concept)):
            under = heading
            yield heading
        for child in _items(item, "0040A730"):
            if _text(child, "0040A010") not in CONTEXT:
                yield from self._lines(child, section, under, depth + 1)


def _said(item: Dataset, kind: str) -> str:
    """The value of a content item as text (PS3.3 Table C.17.3-7); "" for what only points somewhere."""
    match kind:
        case "TEXT":
            return _text(item, "0040A160")
        case "CODE":
            return _meaning(_first(item, "0040A168"))
        case "NUM":
            measured = _first(item, "0040A300")
            unit = _text(_first(measured, "004008EA"), "00080100")
            value = _text(measured, "0040A30A")
            return f"{value} {unit}".strip() if unit != "1" else value
        case "PNAME":
            return name_text(_value(item, "0040A123"))
        case "DATE" | "TIME" | "DATETIME":
            return _text(item, {"DATE": "0040A121", "TIME": "0040A122", "DATETIME": "0040A120"}[kind])
        case _:
            return ""


def _name(item: Dataset) -> tuple[str, str]:
    concept = _first(item, "0040A043")
    return _text(concept, "00080102"), _text(concept, "00080100")


def _meaning(concept: Dataset) -> str:
    return _text(concept, "00080104") or _text(concept, "00080100")


def _coded(concept: Dataset) -> Coded:
    system = SYSTEMS.get(_text(concept, "00080102"), "")
    return Coded(text=_meaning(concept), system=system, code=_text(concept, "00080100") if system else "")


def _items(dataset: Dataset, tag: str) -> list[Dataset]:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _first(dataset: Dataset, tag: str) -> Dataset:
    return next(iter(_items(dataset, tag)), {})


def _value(dataset: Dataset, tag: str) -> Any:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _text(dataset: Dataset, tag: str) -> str:
    value = _value(dataset, tag)
    return str(value).strip() if isinstance(value, str | int | float) else ""
