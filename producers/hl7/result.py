"""ORU^R01: what a RIS tells of a report (HL7 v2.5.1 ch. 7.3.1; IHE RAD TF-2 §4.28). Pure.

Each OBR is a report; what it says stands in the OBX behind it:

| OBX-3 | becomes |
|---|---|
| LOINC 19005-8, 18834-2, 55110-1, suffix `&IMP`, `&REC` (recommendation 18783-1 too) | impression |
| LOINC 55111-9 | technique |
| LOINC 18785-6, 55752-0, suffix `&IND` | clinical question |
| `113014` of DCM, or a text `Study Instance UID` | the study |
| any other text, and NTE | findings |
| type ED | a form as it came: PDF, for example |

| OBR-25 (table 0123) | DiagnosticReport.status |
|---|---|
| O, I, S | registered |
| A | partial |
| P, R | preliminary |
| F | final |
| C | corrected |
| X | cancelled |
| Y, Z, others | refused: they answer queries |

All of its OBX with OBX-11 `W` (posted as wrong, for the wrong patient): entered-in-error.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from producers.hl7 import values
from schemas.errors import Invalid
from schemas.hl7 import Message, Segment
from schemas.identity import check_uid
from schemas.report_content import Coded, Presented

STATUS: Final[Mapping[str, str]] = {
    "O": "registered",
    "I": "registered",
    "S": "registered",
    "A": "partial",
    "P": "preliminary",
    "R": "preliminary",
    "F": "final",
    "C": "corrected",
    "X": "cancelled",
}
INSTEAD: Final[Mapping[str, str]] = {
    "final": "amended",
    "corrected": "final",
    "cancelled": "entered-in-error",
}
"""What a status means where it may not follow what is there: many systems send F again for what they changed, C for
what was never final here, X for what was."""
WORDLESS: Final = frozenset({"registered", "cancelled", "entered-in-error"})
"""States of which nothing needs to be said."""

RESULTS_MAX: Final = 64
FORM_BYTES_MAX: Final = 12 << 20
_IMPRESSION: Final = frozenset("19005-8 18834-2 55110-1 18783-1".split())
_TECHNIQUE: Final = "55111-9"
_QUESTION: Final = frozenset("18785-6 55752-0".split())
_TEXT_TYPES: Final = frozenset("TX FT ST CE CWE CF NM SN DT TM TS".split())
_MIME: Final = {"AP": "application", "TEXT": "text", "IM": "image", "MULTIPART": "multipart"}
_ACCESSION_MAX: Final = 16
"""VR SH (PS3.5 §6.2): a longer one cannot stand in an image."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A report as a RIS tells it."""

    number: str
    """Which report of the sender's this is: filler order number, else placer order number."""
    accessions: tuple[str, ...]
    """Candidates for the accession number, the best first."""
    study_uids: tuple[str, ...]
    status: str
    procedure: Coded
    findings: str
    impression: str
    technique: str
    question: str
    referring: str
    """DICOM PN of who asked."""
    interpreter: str
    """DICOM PN of who answers for it."""
    issued: str
    """RFC 3339; empty: not said."""
    presented: tuple[Presented, ...]
    critical: bool


def results(message: Message, zone: tzinfo) -> list[Result]:
    """The reports of a message; times without a zone are of `zone`. Raises Invalid(`hl7-…`), which quotes nothing."""
    groups = [g for g in message.groups("ORC", "OBR") if any(s.name == "OBR" for s in g)]
    if not groups:
        raise Invalid("hl7-obr-missing", "a result needs an OBR")
    if len(groups) > RESULTS_MAX:
        raise Invalid("hl7-results-many", f"a message has at most {RESULTS_MAX} OBR")
    shared = [s for s in message.segments if s.name in ("ZDS", "IPC")]
    return [_result(group, shared if len(groups) == 1 else [], zone) for group in groups]


def _result(group: Sequence[Segment], shared: Sequence[Segment], zone: tzinfo) -> Result:
    obr = next(s for s in group if s.name == "OBR")
    orc = next((s for s in group if s.name == "ORC"), Segment("ORC", (), obr.separators))
    placer, filler = obr.text(2) or orc.text(2), obr.text(3) or orc.text(3)
    extra = [*group, *shared]
    ipc = next((s for s in extra if s.name == "IPC"), Segment("IPC", (), obr.separators))
    candidates = (obr.text(18), ipc.text(1), obr.text(20), filler, placer)
    accessions = tuple(dict.fromkeys(c for c in candidates if 0 < len(c) <= _ACCESSION_MAX))
    number = filler or placer or next(iter(accessions), "")
    if not number:
        raise Invalid("hl7-number-missing", "OBR-2 or OBR-3 names the order that a report is of")
    said = [s for s in group if s.name == "OBX" and s.text(11) != "D"]
    status = STATUS.get(obr.text(25), "")
    if said and all(s.text(11) == "W" for s in said):
        status = "entered-in-error"
    if not status:
        raise Invalid("hl7-result-status", "OBR-25 is none of O, I, S, A, P, R, F, C, X")
    texts = _Texts()
    for n, segment in enumerate(group):
        if segment.name == "NTE" and not any(s.name == "OBX" and s.text(11) == "D" for s in group[max(0, n - 1) : n]):
            texts.add("findings", _lines(segment, 3))
        elif segment.name == "OBX" and segment in said:
            texts.take(segment)
    if status not in WORDLESS and not (texts.words or texts.forms):
        raise Invalid("hl7-text-missing", "a report needs an OBX with text, or a form of type ED")
    system, code, text = values.coded(obr, 4)
    if not (code or text):
        raise Invalid("hl7-procedure-missing", "OBR-4 says what was done")
    return Result(
        number=number,
        accessions=accessions,
        study_uids=_study_uids(extra),
        status=status,
        procedure=Coded(system=system, code=code, text=text or code),
        findings=texts.of("findings"),
        impression=texts.of("impression"),
        technique=texts.of("technique"),
        question=texts.of("question") or obr.text(13) or obr.text(31, 2) or obr.text(31),
        referring=values.provider_name(obr, 16) or values.provider_name(orc, 12),
        interpreter=_interpreter(obr),
        issued=values.moment(obr.text(22), zone),
        presented=tuple(texts.forms),
        critical=any(s.text(8, repetition=n) == "AA" for s in said for n in range(1, s.repetitions(8) + 1)),
    )


def _interpreter(obr: Segment) -> str:
    """OBR-32: NDL, whose first component is a CN with subcomponents; an XCN where a system writes it so."""
    parts = [obr.text(32, 1, subcomponent=n) for n in range(2, 6)]
    inside = "^".join(parts).rstrip("^")
    return inside or values.provider_name(obr, 32)


class _Texts:
    """What the OBX of a report say, by part of it."""

    def __init__(self) -> None:
        self.words: dict[str, list[str]] = {}
        self.forms: list[Presented] = []
        self._size = 0

    def of(self, part: str) -> str:
        return "\n".join(self.words.get(part, ())).strip()

    def add(self, part: str, text: str) -> None:
        if text.strip():
            self.words.setdefault(part, []).append(text)

    def take(self, obx: Segment) -> None:
        if _is_study_uid(obx):
            return
        if obx.text(2) == "ED":
            self._form(obx)
        elif obx.text(2) in _TEXT_TYPES or not obx.text(2):
            self.add(_part(obx), _lines(obx, 5))

    def _form(self, obx: Segment) -> None:
        """ED: source^type^subtype^encoding^data (ch. 2A.24)."""
        kind, subtype, encoding = (obx.text(5, n).lower() for n in (2, 3, 4))
        raw = re.sub(r"\s+", "", obx.text(5, 5)) if encoding != "a" else obx.text(5, 5)
        try:
            data = {
                "base64": lambda: base64.b64decode(raw, validate=True),
                "hex": lambda: bytes.fromhex(raw),
                "a": lambda: raw.encode(),
            }[encoding]()
        except (KeyError, ValueError, binascii.Error) as e:
            raise Invalid("hl7-form", "a form of type ED is encoded as Base64, Hex or A") from e
        self._size += len(data)
        if self._size > FORM_BYTES_MAX:
            raise Invalid("hl7-form-large", f"the forms of a report have at most {FORM_BYTES_MAX >> 20} MiB")
        if subtype == "pdf" or data.startswith(b"%PDF"):
            content_type = "application/pdf"
        elif kind == "text" or not kind:
            content_type = "text/plain"
        else:
            content_type = f"{_MIME.get(kind.upper(), kind)}/{subtype or 'octet-stream'}"
        if data:
            self.forms.append(Presented(content_type=content_type, data=data, title=obx.text(3, 2)[:200]))


def _part(obx: Segment) -> str:
    code, suffix = obx.text(3), obx.text(3, subcomponent=2).upper()
    if code in _IMPRESSION or suffix in ("IMP", "REC"):
        return "impression"
    if code == _TECHNIQUE:
        return "technique"
    return "question" if code in _QUESTION or suffix == "IND" else "findings"


def _lines(segment: Segment, field: int) -> str:
    """Text whose repetitions are lines; of a code what it means, with a unit (OBX-6) what it counts."""
    coded = segment.name == "OBX" and segment.text(2) in ("CE", "CWE", "CF")
    lines = []
    for n in range(1, segment.repetitions(field) + 1):
        line = segment.text(field, 2, repetition=n) if coded else ""
        lines.append(line or segment.text(field, repetition=n))
    unit = segment.text(6) if segment.name == "OBX" and segment.text(2) in ("NM", "SN") else ""
    return "\n".join(lines) + (f" {unit}" if unit and lines else "")


def _is_study_uid(obx: Segment) -> bool:
    code, text = obx.text(3), obx.text(3, 2).casefold()
    return code == "113014" or "study instance uid" in (code.casefold(), text)


def _study_uids(segments: Sequence[Segment]) -> tuple[str, ...]:
    """ZDS-1 (IHE RAD TF-2 §4.4.4.1.2.4), IPC-3, and OBX that name the study."""
    found = [s.text(1) for s in segments if s.name == "ZDS"]
    found += [s.text(3) for s in segments if s.name == "IPC"]
    found += [s.text(5) for s in segments if s.name == "OBX" and _is_study_uid(s)]
    uids = tuple(dict.fromkeys(uid for uid in found if uid))
    for uid in uids:
        check_uid(uid)
    return uids
