"""Messages of a RIS for tests."""

from __future__ import annotations

from schemas.hl7 import Field, joined, segment

NATIONAL = "29001011234567"
"""Form of a national ID: born 1990-01-01, governorate 12, F."""


def header(kind: str, control: str = "M1", *, facility: str = "H1", version: str = "2.5", charset: str = "") -> str:
    fields: list[Field] = ["RIS", facility, "SIJIL", "MOH", "20260102110000+0200", "", kind.split("^"), control, "P"]
    return segment("MSH", *fields, version, "", "", "", "", "", charset)


def patient(number: str = "P1", name: str = "سامي^ليلى", born: str = "19900101", sex: str = "F") -> str:
    return f"PID|1||{number}^^^H1^MR||{name}||{born}|{sex}|||||01012345678"


def oru(
    text: str = "لا يوجد نزف داخل القحف",
    *,
    status: str = "F",
    control: str = "M1",
    accession: str = "A1",
    number: str = "F1",
    who: str = "",
    facility: str = "H1",
    version: str = "2.5",
    more: tuple[str, ...] = (),
) -> str:
    obr: list[Field] = ["1", "PL1", number, ["CTH", "CT head", "L"], *[""] * 8, "headache", "", "", ["7", "علي", "منى"]]
    obr += ["", accession, "", "", "", "20260102110000+0200", "", "CT", status]
    lines = [header("ORU^R01", control, facility=facility, version=version), who or patient()]
    lines += ["ORC|RE", segment("OBR", *obr)]
    if text:
        lines.append(segment("OBX", "1", "FT", ["59776-5", "Findings", "LN"], "", text, "", "", "", "", "", status))
    return joined([*lines, *more])
