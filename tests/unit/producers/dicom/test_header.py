"""Headers: equal to pydicom's in every file but for a closed list, and never a surprise."""

import json
from pathlib import Path

import pytest

from producers.dicom.essentials import essentials
from producers.dicom.header import QUERY_ATTRIBUTES, Header, header_json
from producers.dicom.part10 import parse_file_meta
from producers.dicom.reasons import MARKS
from producers.dicom.syntaxes import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from tests.unit.producers.dicom.oracle import DIFFERENCES, differences, ours, theirs
from tests.unit.producers.dicom.samples import INSTANCES, TEST_FILES, name_of

# pydicom itself cannot give these as JSON.
BEYOND_PYDICOM = {"test_files/badVR.dcm": "an IS of `1A`: kept as text and marked here"}


def header_of(data: bytes) -> Header:
    meta = parse_file_meta(data)
    return header_json(memoryview(data)[meta.dataset_offset :], meta.transfer_syntax)


@pytest.mark.parametrize("path", [path for path in INSTANCES if name_of(path) not in BEYOND_PYDICOM], ids=name_of)
def test_agrees_with_pydicom_on_every_file(path: Path) -> None:
    data = path.read_bytes()
    header = header_of(data)
    surprises = [found for found in differences(ours(header), theirs(data)) if found[1] not in DIFFERENCES]
    assert not surprises
    assert set(header.marks) <= MARKS.keys()


def test_every_difference_from_pydicom_has_its_file() -> None:
    seen = set()
    for path in INSTANCES:
        if name_of(path) not in BEYOND_PYDICOM:
            data = path.read_bytes()
            seen |= {reason for _, reason in differences(ours(header_of(data)), theirs(data))}
    # The others have their cases in test_values.py.
    assert seen == DIFFERENCES.keys() - {"empty-group", "text-number", "string-number"}


@pytest.mark.parametrize("path", INSTANCES, ids=name_of)
def test_agrees_with_the_essentials(path: Path) -> None:
    data = path.read_bytes()
    meta = parse_file_meta(data)
    found = essentials(data[meta.dataset_offset :], meta.transfer_syntax)
    header = header_of(data)
    for tag, value in (
        ("00080016", found.sop_class_uid),
        ("00080018", found.sop_instance_uid),
        ("0020000D", found.study_uid),
        ("0020000E", found.series_uid),
        ("00100020", found.patient_id),
    ):
        assert header.attributes.get(tag, [""]) == [value]


def test_attributes_are_the_picked_ones_with_a_value() -> None:
    for path in INSTANCES:
        header = header_of(path.read_bytes())
        whole = ours(header)
        assert header.attributes == {
            tag: attribute["Value"]
            for tag, attribute in whole.items()
            if int(tag, 16) in QUERY_ATTRIBUTES and "Value" in attribute
        }


def test_a_caller_picks_what_it_needs() -> None:
    data = (TEST_FILES / "CT_small.dcm").read_bytes()
    meta = parse_file_meta(data)
    header = header_json(data[meta.dataset_offset :], meta.transfer_syntax, pick={0x00100010, 0x00281050, 0x00189999})
    assert header.attributes == {"00100010": [{"Alphabetic": "CompressedSamples^CT1"}]}
    assert header.character_set == "ISO_IR 100"


@pytest.mark.parametrize("name", ["MR_small", "rtdose", "liver_1frame"])
def test_the_encoding_leaves_no_trace(name: str) -> None:
    big = (
        TEST_FILES
        / {"MR_small": "MR_small_bigendian", "rtdose": "rtdose_expb", "liver_1frame": "liver_expb_1frame"}[name]
    )
    little, swapped = (
        ours(header_of((TEST_FILES / f"{name}.dcm").read_bytes())),
        ours(header_of(big.with_suffix(".dcm").read_bytes())),
    )
    for tag in ("0020000D", "00080018", "00080016"):
        little.pop(tag, None)
        swapped.pop(tag, None)
    assert {tag: value for tag, value in little.items() if value.get("vr") != "UN"} == {
        tag: value for tag, value in swapped.items() if value.get("vr") != "UN"
    }


# ------------------------------------------------------------------------------------------------ built by hand


def explicit(tag: int, vr: str, value: bytes, *, undefined: bool = False, order: str = "little") -> bytes:
    head = (tag >> 16).to_bytes(2, order) + (tag & 0xFFFF).to_bytes(2, order) + vr.encode()  # type: ignore[arg-type]
    if vr in ("OB", "OW", "OD", "OF", "OL", "OV", "SQ", "UN", "UT", "UC", "UR", "SV", "UV"):
        return head + b"\0\0" + (b"\xff" * 4 if undefined else len(value).to_bytes(4, order)) + value  # type: ignore[arg-type]
    return head + len(value).to_bytes(2, order) + value  # type: ignore[arg-type]


def implicit(tag: int, value: bytes, *, undefined: bool = False) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    return head + (b"\xff" * 4 if undefined else len(value).to_bytes(4, "little")) + value


def item(content: bytes, *, undefined: bool = False) -> bytes:
    return implicit(0xFFFEE000, content, undefined=undefined) + (implicit(0xFFFEE00D, b"") if undefined else b"")


END = implicit(0xFFFEE0DD, b"")
UID = explicit(0x00080018, "UI", b"1.2.3\0")


def read(dataset: bytes, syntax: str = EXPLICIT_LE) -> tuple[dict[str, dict[str, object]], tuple[str, ...]]:
    header = header_json(dataset, syntax)
    return ours(header), header.marks


@pytest.mark.parametrize("sequence_undefined", [False, True])
@pytest.mark.parametrize("item_undefined", [False, True])
def test_sequences_of_either_length(sequence_undefined: bool, item_undefined: bool) -> None:
    inner = item(UID, undefined=item_undefined) + item(b"", undefined=item_undefined)
    inner = explicit(0x00081115, "SQ", inner, undefined=sequence_undefined) + (END if sequence_undefined else b"")
    outer = item(inner, undefined=item_undefined)
    outer = explicit(0x00081199, "SQ", outer, undefined=sequence_undefined) + (END if sequence_undefined else b"")
    found, marks = read(UID + outer + explicit(0x00100020, "LO", b"7 "))
    uid = {"00080018": {"vr": "UI", "Value": ["1.2.3"]}}
    assert found == uid | {
        "00081199": {"vr": "SQ", "Value": [{"00081115": {"vr": "SQ", "Value": [uid, {}]}}]},
        "00100020": {"vr": "LO", "Value": ["7"]},
    }
    assert marks == ()


def test_bulk_data_is_a_reference_with_its_path() -> None:
    bulk = explicit(0x00281201, "OW", bytes(1026))
    icon = explicit(0x7FE00010, "OW", b"\1\2")
    found, marks = read(
        UID + bulk + explicit(0x00880200, "SQ", item(b"") + item(bulk + icon)) + explicit(0x7FE00010, "OB", b"")
    )
    assert found["00281201"] == {"vr": "OW", "BulkDataURI": "bulkdata/00281201"}
    assert found["00880200"]["Value"] == [
        {},
        {
            "00281201": {"vr": "OW", "BulkDataURI": "bulkdata/00880200/2/00281201"},
            "7FE00010": {"vr": "OW", "BulkDataURI": "bulkdata/00880200/2/7FE00010"},
        },
    ]
    assert found["7FE00010"] == {"vr": "OB"}
    assert marks == ()


def test_thresholds() -> None:
    for size, inline in ((1024, True), (1026, False)):
        found, _ = read(UID + explicit(0x00091001, "OB", bytes(size)) + explicit(0x00091002, "UN", bytes(size)))
        assert ("InlineBinary" in found["00091001"], "InlineBinary" in found["00091002"]) == (inline, inline)
    for size, inline in ((1 << 16, True), ((1 << 16) + 2, False)):
        found, _ = read(UID + explicit(0x00091001, "UT", b"x" * size) + explicit(0x00091002, "UC", b"x" * size))
        assert ("Value" in found["00091001"], "Value" in found["00091002"]) == (inline, inline)


def test_implicit_vr_takes_the_dictionary() -> None:
    dataset = b"".join(
        [
            implicit(0x00080018, b"1.2.3\0"),
            implicit(0x00090010, b"GEMS_IDEN_01"),
            implicit(0x00091002, b"CT01"),  # SH in the private dictionary
            implicit(0x000910F0, b"\1\2"),  # not in it
            implicit(0x00110010, b"NOBODY KNOWS"),
            implicit(0x00111001, b"x"),
            implicit(0x00185A01, b"\1\2"),  # no tag of PS3.6
            implicit(0x00280103, b"\1\0"),
            implicit(0x00280106, b"\xff\xff"),
            implicit(0x60003000, b"\1\2"),
            implicit(0x7FE00010, b""),
        ]
    )
    found, marks = read(dataset, IMPLICIT_LE)
    assert {tag: attribute["vr"] for tag, attribute in found.items()} == {
        "00080018": "UI",
        "00090010": "LO",
        "00091002": "SH",
        "000910F0": "UN",
        "00110010": "LO",
        "00111001": "UN",
        "00185A01": "UN",
        "00280103": "US",
        "00280106": "SS",
        "60003000": "OW",
        "7FE00010": "OW",
    }
    assert found["00280106"]["Value"] == [-1]
    assert marks == ()


def test_pixel_representation_is_looked_for_outside_and_ahead() -> None:
    smallest = implicit(0x00280106, b"\xff\xff")
    before = implicit(0x00081115, item(smallest))
    behind = implicit(0x00880200, item(smallest) + item(implicit(0x00280103, b"\0\0") + smallest))
    found, _ = read(before + implicit(0x00280103, b"\1\0") + behind, IMPLICIT_LE)
    assert found["00081115"]["Value"] == [{"00280106": {"vr": "SS", "Value": [-1]}}]
    first, second = found["00880200"]["Value"]  # type: ignore[misc]
    assert first["00280106"] == {"vr": "SS", "Value": [-1]}  # type: ignore[has-type]
    assert second["00280106"] == {"vr": "US", "Value": [65535]}  # type: ignore[has-type]
    assert read(smallest, IMPLICIT_LE)[0]["00280106"] == {"vr": "US", "Value": [65535]}


def test_lut_data_is_a_number_when_there_is_one() -> None:
    for entries, attribute in ((b"\1\0", {"vr": "US", "Value": [5]}), (b"\2\0", {"vr": "OW", "InlineBinary": "BQA="})):
        found, _ = read(implicit(0x00283002, entries + b"\0\0\x10\0") + implicit(0x00283006, b"\5\0"), IMPLICIT_LE)
        assert found["00283006"] == attribute


def test_un_takes_the_dictionary_and_little_endian() -> None:
    sequence = explicit(0x00081115, "UN", item(implicit(0x00080018, b"1.2.3\0"), undefined=True), undefined=True)
    private = explicit(0x00091115, "UN", item(implicit(0x00280010, b"\2\0")), undefined=True)
    for order, syntax in (("little", EXPLICIT_LE), ("big", EXPLICIT_BE)):
        dataset = explicit(0x00080018, "UI", b"1.2.3\0", order=order)
        for tag, part in ((0x00081115, sequence), (0x00091115, private)):
            head = (tag >> 16).to_bytes(2, order) + (tag & 0xFFFF).to_bytes(2, order)  # type: ignore[arg-type]
            dataset += head + part[4:] + END
        dataset += explicit(0x00280010, "UN", b"\2\0", order=order)
        found, marks = read(dataset, syntax)
        assert found == {
            "00080018": {"vr": "UI", "Value": ["1.2.3"]},
            "00081115": {"vr": "SQ", "Value": [{"00080018": {"vr": "UI", "Value": ["1.2.3"]}}]},
            "00091115": {"vr": "SQ", "Value": [{"00280010": {"vr": "US", "Value": [2]}}]},
            "00280010": {"vr": "US", "Value": [2]},
        }
        assert marks == ()


def test_a_wrong_guess_at_un_stays_un() -> None:
    found, marks = read(UID + explicit(0x00081115, "UN", b"no items") + explicit(0x00280010, "UN", b"\1\2\3"))
    assert found["00081115"] == {"vr": "UN", "InlineBinary": "bm8gaXRlbXM="}
    assert found["00280010"] == {"vr": "UN", "InlineBinary": "AQID"}
    assert marks == ("bad-value-length",)


@pytest.mark.parametrize(
    ("element", "marks"),
    [
        (b"\x09\x00\x01\x10ZZ\0\0\4\0\0\0abcd", ("unknown-vr",)),  # a VR of a later edition
        (b"\x09\x00\x01\x10??\4\0abcd", ("unknown-vr",)),  # an old device
        (b"\x09\x00\x01\x10\4\0\0\0abcd", ("unknown-vr",)),  # no VR at all
    ],
)
def test_vrs_that_are_none(element: bytes, marks: tuple[str, ...]) -> None:
    found, seen = read(UID + element + explicit(0x00100020, "LO", b"7 "))
    assert found["00091001"] == {"vr": "UN", "InlineBinary": "YWJjZA=="}
    assert found["00100020"] == {"vr": "LO", "Value": ["7"]}
    assert seen == marks


def test_a_damaged_sequence_costs_only_itself() -> None:
    damaged = explicit(0x00081115, "SQ", item(UID) + item(b"\1\2\3\4\5\6\7\x08\x09")[:-1])
    nested = explicit(0x00081199, "SQ", item(damaged + explicit(0x00081150, "UI", b"1.2")))
    found, marks = read(UID + nested + explicit(0x00100020, "LO", b"7 "))
    assert found["00081199"]["Value"] == [{"00081115": {"vr": "SQ"}, "00081150": {"vr": "UI", "Value": ["1.2"]}}]
    assert found["00100020"] == {"vr": "LO", "Value": ["7"]}
    assert marks == ("damaged-sequence",)


def test_sequences_deeper_than_the_bound_are_left_out() -> None:
    dataset = UID
    for _ in range(200):
        dataset = explicit(0x00081115, "SQ", item(dataset))
    found, marks = read(dataset)
    depth = 0
    while "Value" in found["00081115"]:
        found = found["00081115"]["Value"][0]  # type: ignore[index]
        depth += 1
    assert (depth, marks) == (64, ("damaged-sequence",))


@pytest.mark.parametrize("items", [item(UID * 1100) * 1000, item(b"") * 1_100_000], ids=["elements", "items"])
def test_more_than_the_bound_in_sequences_is_left_out(items: bytes) -> None:
    many = explicit(0x00081115, "SQ", items)
    found, marks = read(UID + many + explicit(0x00081199, "SQ", item(UID)) + explicit(0x00100020, "LO", b"7 "))
    assert found["00081115"] == {"vr": "SQ"}
    assert found["00081199"] == {"vr": "SQ"}
    assert found["00100020"] == {"vr": "LO", "Value": ["7"]}
    assert "too-much-header" in marks


def test_order_and_repetition() -> None:
    inside = explicit(0x00100020, "LO", b"2 ") + explicit(0x00100010, "PN", b"N ") + explicit(0x00100020, "LO", b"3 ")
    found, marks = read(explicit(0x00100020, "LO", b"7 ") + UID + explicit(0x00081115, "SQ", item(inside)) + inside)
    assert list(found) == ["00080018", "00081115", "00100010", "00100020"]
    assert found["00100020"] == {"vr": "LO", "Value": ["7"]}
    assert found["00081115"]["Value"][0]["00100020"] == {"vr": "LO", "Value": ["2"]}  # type: ignore[index]
    assert marks == ("unordered-tags",)


def test_the_json_says_its_character_set_when_it_needs_one() -> None:
    name = "محمد".encode()
    assert "00080005" not in read(UID)[0]
    guessed, marks = read(UID + explicit(0x00100010, "PN", name))
    assert list(guessed) == ["00080005", "00080018", "00100010"]
    assert guessed["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert marks == ("guessed-charset",)
    for said in (b"", b"ISO_IR 100", b"\\ISO 2022 IR 87", b"nonsense"):
        header = header_json(explicit(0x00080005, "CS", said) + UID, EXPLICIT_LE)
        assert ours(header)["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
        assert header.character_set == said.decode()


def test_items_inherit_the_character_set_and_may_have_their_own() -> None:
    arabic = explicit(0x00100010, "PN", "محمد".encode("iso8859-6"))
    greek = explicit(0x00080005, "CS", b"ISO_IR 126") + explicit(0x00100010, "PN", "Διον".encode("iso8859-7"))
    found, marks = read(
        explicit(0x00080005, "CS", b"ISO_IR 127") + explicit(0x00081115, "SQ", item(arabic) + item(greek))
    )
    assert found["00081115"]["Value"] == [
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "محمد"}]}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Διον"}]}},
    ]
    assert marks == ()


def test_implicit_items_in_an_explicit_dataset() -> None:
    found, marks = read(UID + explicit(0x00081115, "SQ", item(implicit(0x00080018, b"1.2.3\0")), undefined=True) + END)
    assert found["00081115"]["Value"] == [{"00080018": {"vr": "UI", "Value": ["1.2.3"]}}]
    assert marks == ()


def test_the_bytes_may_be_any_buffer() -> None:
    expected = header_json(UID, EXPLICIT_LE)
    for buffer in (bytearray(UID), memoryview(UID), memoryview(bytearray(b"xx" + UID))[2:]):
        assert header_json(memoryview(buffer), EXPLICIT_LE) == expected
    assert json.loads(expected.json) == {"00080018": {"vr": "UI", "Value": ["1.2.3"]}}
