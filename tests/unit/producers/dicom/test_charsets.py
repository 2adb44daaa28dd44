"""Character sets: the standard's, the wrong ones and none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding

from producers.dicom.charsets import DEFAULT, character_set, decode


def read(raw: bytes, term: bytes | None, *, name: bool = False) -> tuple[str, set[str]]:
    marks: set[str] = set()
    charset = DEFAULT if term is None else character_set(term)
    return decode(raw, charset, marks, name=name), marks | set(charset.marks)


@pytest.mark.parametrize("term", sorted(python_encoding))
def test_every_defined_term_is_known(term: str) -> None:
    assert character_set(term.encode()).marks == ()


@pytest.mark.parametrize(
    ("term", "codec"),
    [
        (b"ISO-IR 127", "iso_ir_127"),
        (b"ISO IR 127", "iso_ir_127"),
        (b"iso_ir 127", "iso_ir_127"),
        (b"ISO_IR127", "iso_ir_127"),
        (b"IR 127", "iso_ir_127"),
        (b"ISO 2022-IR 87", "iso2022_jp"),
        (b"ISO_2022_IR_6", None),
        (b"UTF-8", "utf-8"),
        (b"windows-1256", "cp1256"),
        (b"ISO_IR 999", None),
        (b"\xff\xfe", None),
    ],
)
def test_other_spellings_are_read_and_marked(term: bytes, codec: str | None) -> None:
    charset = character_set(term)
    assert charset.first == codec
    assert charset.marks == (() if term == b"iso_ir 127" else ("unknown-charset",))


def test_padding_and_code_extensions() -> None:
    assert character_set(b" ISO_IR 127 \0").first == "iso_ir_127"
    assert character_set(b"\\ISO 2022 IR 87").first is None
    assert character_set(b"").first is None
    assert character_set(b"ISO_IR 192\\ISO 2022 IR 87").marks == ("unknown-charset",)


# PS3.5 Annexes H to K, and Arabic in every way.
EXAMPLES = [
    (b"ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    (b"ISO_IR 192", "محمد^أحمد".encode(), "محمد^أحمد"),
    (b"ISO_IR 100", "Äneas^Rüdiger".encode("latin-1"), "Äneas^Rüdiger"),
    (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
    (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
    (b"\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "Zhang^XiaoDong=张^小东="),
    (b"GB18030", "王^小东".encode("gb18030"), "王^小东"),
    (b"ISO 2022 IR 6\\ISO 2022 IR 127", b"Ali^\x1b-G\xd9\xe4\xea", "Ali^علي"),
    (b"ISO 2022 IR 6\\ISO 2022 IR 144\\ISO 2022 IR 126", b"\x1b-L\xbb\xee^\x1b-F\xc4\xe9=x", "Лю^Δι=x"),
]


@pytest.mark.parametrize(("term", "raw", "text"), EXAMPLES)
def test_the_standards_examples(term: bytes, raw: bytes, text: str) -> None:
    assert read(raw, term, name=True) == (text, set())


@pytest.mark.parametrize(
    "term", ["ISO_IR 101", "ISO_IR 110", "ISO_IR 126", "ISO_IR 127", "ISO_IR 138", "ISO_IR 144", "ISO_IR 192", "GBK"]
)
@given(st.data())
def test_what_pydicom_encodes_is_read_back(term: str, data: st.DataObject) -> None:
    codec = python_encoding[term]
    text = data.draw(st.text(st.characters(codec=codec, exclude_characters="\x1b\\"), max_size=20))
    raw = encode_string(text, convert_encodings(term))
    assert read(raw, term.encode()) == (text, set())


@given(st.sampled_from([term for term, _, _ in EXAMPLES]), st.binary(max_size=30), st.booleans())
def test_any_bytes_are_some_text(term: bytes, raw: bytes, name: bool) -> None:
    text, marks = read(raw, term, name=name)
    text.encode("utf-8")
    if not marks and b"\x1b" not in raw:
        assert text == decode_bytes(raw, convert_encodings(term.decode().split("\\")), set())


ARABIC = ["محمد أحمد عبد الله", "فاطمة^الزهراء", "مستشفى القصر العيني", "يوسف"]
LATIN = ["Jäger", "Müller^Jörg", "François", "Ñuñez", "élève à", "Ångström"]


@pytest.mark.parametrize("text", ARABIC + LATIN)
def test_without_a_term_the_text_is_guessed(text: str) -> None:
    assert read(text.encode(), None) == (text, {"guessed-charset"})
    codec = "cp1256" if text in ARABIC else "latin-1"
    assert read(text.encode(codec), None) == (text, {"guessed-charset"})


def test_iso_8859_6_is_told_from_windows_1256_where_it_can_be() -> None:
    text = "مستشفى القصر العيني"
    assert read(text.encode("iso8859-6"), None) == (text, {"guessed-charset"})


@pytest.mark.parametrize("text", ARABIC)
def test_arabic_under_the_wrong_term_is_guessed(text: str) -> None:
    assert read(text.encode("cp1256"), b"ISO_IR 192") == (text, {"wrong-charset"})
    # Latin-1 has every byte: only that it makes Arabic words tells.
    assert read(text.encode("cp1256"), b"ISO_IR 100") == (text, {"wrong-charset"})
    assert read(text.encode(), b"ISO_IR 100") == (text, {"wrong-charset"})


@pytest.mark.parametrize("text", LATIN)
def test_latin_1_under_its_own_term_is_believed(text: str) -> None:
    assert read(text.encode("latin-1"), b"ISO_IR 100") == (text, set())


def test_damaged_escapes_are_marked_and_kept() -> None:
    assert read(b"a\x1b", b"\\ISO 2022 IR 87") == ("a\x1b", {"wrong-charset"})
    assert read(b"a\x1b$Bx", b"\\ISO 2022 IR 87")[1] == {"wrong-charset"}
    assert read(b"\x1b%Gx", None) == ("\x1b%Gx", {"wrong-charset"})
