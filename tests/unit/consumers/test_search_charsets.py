"""Whatever the character set of an instance, right, wrong or missing, its study is found by the letters of its name."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from tests.unit.consumers.archive import MemoryArchive, part10

PLAIN = "ZZPLAIN"
"""Replaced in the encoded file by bytes of another encoding; padded with spaces to its length."""

# Specific Character Set, name, what is asked for. PS3.3 Tables C.12-2 to C.12-5.
NAMED = (
    ("ISO_IR 100", "Müller^Jürgen", "MULLER*"),
    ("ISO_IR 101", "Wałęsa^Łukasz", "wałęsa*"),
    ("ISO_IR 109", "Ċaruana^Ġorġ", "*ġorġ"),
    ("ISO_IR 110", "Ozoliņš^Jānis", "Ozolins*"),
    ("ISO_IR 144", "Люкceмбypг", "люк*"),
    ("ISO_IR 127", "قباني^لنزار", "*نزار*"),
    ("ISO_IR 126", "Διονυσιος", "διονυσ*"),
    ("ISO_IR 138", "שרון^דבורה", "שרון*"),
    ("ISO_IR 148", "Çavuşoğlu^Işıl", "*avuşo*"),
    ("ISO_IR 166", "นามสกุล^ชื่อ", "นามสกุล*"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "*ﾀﾛｳ"),
    ("ISO 2022 IR 6\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう", "山田*"),
    ("ISO 2022 IR 6\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동", "홍^길동"),
    ("ISO 2022 IR 6\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东", "张*"),
    ("ISO 2022 IR 6\\ISO 2022 IR 127", "Hassan^Mona=حسن^منى", "حسن^مني"),
    ("GB18030", "Wang^XiaoDong=王^小东", "*小东"),
    ("GBK", "Wang^XiaoDong=王^小东", "王*"),
    ("ISO_IR 192", "أحمد^محمد=Ahmed^Mohamed", "احمد*"),
)

# Specific Character Set as it stands, the bytes of the name, what is asked for.
MISTAKEN = (
    ("", "أحمد^محمد".encode(), "احمد*"),
    ("", "أحمد^محمد".encode("cp1256"), "احمد*"),
    ("ISO_IR 203", "Šœur^Žoé".encode("iso8859-15"), "Šœur^*"),  # named, but not by pydicom
    ("ISO_IR 100", "أحمد^محمد".encode("cp1256"), "*محمد"),
    ("ISO_IR 192", "Müller^Jo".encode("latin-1"), "müll*"),
    ("ISO_IR 127", "أحمد^محمد".encode(), "احمد*"),
    ("NONSENSE", "أحمد^محمد".encode(), "أحمد*"),
)


def test_named_character_sets_are_read() -> None:
    archive = MemoryArchive()
    for n, (charset, name, _) in enumerate(NAMED):
        study = f"1.2.{n}"
        terms = charset.split("\\")
        file = part10(f"{study}.1", study=study, series=f"{study}.0", SpecificCharacterSet=terms, PatientName=name)
        archive.store([file])
    asked = [(f"1.2.{n}", pattern, name) for n, (_, name, pattern) in enumerate(NAMED)]
    check(archive, asked)


@pytest.mark.parametrize(("charset", "raw", "pattern"), MISTAKEN)
def test_mistaken_character_sets_are_guessed(charset: str, raw: bytes, pattern: str) -> None:
    room = PLAIN * 6
    file = part10("1.2.0.1", study="1.2.0", series="1.2.0.0", SpecificCharacterSet="ISO_IR 100", PatientName=room)
    file = file.replace(room.encode(), raw.ljust(len(room)))
    at = file.index(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100")
    file = file[: at + 8] + charset.encode().ljust(10) + file[at + 18 :]
    archive = MemoryArchive()
    archive.store([file])
    check(archive, [("1.2.0", pattern, "")])


def check(archive: MemoryArchive, asked: list[tuple[str, str, str]]) -> None:
    async def run() -> None:
        async with archive.client() as client:
            for study, pattern, name in asked:
                answer = await client.get(f"/dicom-web/studies?PatientName={quote(pattern)}")
                rows = answer.json()
                assert study in [r["0020000D"]["Value"][0] for r in rows], pattern
                if name:
                    (row,) = (r for r in rows if r["0020000D"]["Value"] == [study])
                    assert "=".join(row["00100010"]["Value"][0].values()) == name

    asyncio.run(run())
