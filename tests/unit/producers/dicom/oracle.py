"""pydicom's DICOM JSON beside ours, and the closed list of what may differ."""

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pydicom

from producers.dicom.header import Header

Attribute = dict[str, Any]

# Every difference between the two that the tests accept, and why ours is as it is.
DIFFERENCES = {
    "group-length": "PS3.18 §F.2.2: Group Length shall not be included",
    "trailing-padding": "(FFFC,FFFC) is no information of the instance (PS3.10 §7.2)",
    "character-set": "the JSON is UTF-8 and says so once, at its top level",
    "null": "PS3.18 §F.2.5: an empty value of several is null",
    "empty-sequence": "PS3.18 §F.2.5: an attribute without a value has no Value",
    "padding": "spaces around a value, or a component group, that do not count (PS3.5 §6.2)",
    "little-endian": "words of a big endian dataset are swapped: the web is little endian",
    "pixel-data": "pixel data is always a reference",
    "empty-group": "PS3.18 §F.2.2: only the component groups that are not empty",
    "text-number": "a decimal or integer string with the digits that were sent",
    "string-number": "JSON has no number for it, or readers lose digits: a string (PS3.18 §F.2.3)",
}

_WORD = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}


def theirs(data: bytes) -> Attribute:
    """The file `data` by pydicom, with our threshold for bulk data; references are empty."""
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    # Its threshold counts base64: 1366 characters are the 1024 bytes of ours.
    return dataset.to_json_dict(bulk_data_threshold=1366, bulk_data_element_handler=lambda _: "")


def ours(header: Header) -> Attribute:
    """The header as objects; its attributes must be in order, at every level."""

    def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names)
        if names and len(names[0]) == 8 and names[0] != "Phonetic":
            assert names == sorted(names)
        return dict(pairs)

    loaded: Attribute = json.loads(header.json.decode("utf-8"), object_pairs_hook=ordered)
    return loaded


def differences(mine: Attribute, other: Attribute, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, key of DIFFERENCES or a description) of each attribute that is not the same."""
    for tag in sorted(mine.keys() | other.keys()):
        at = path + tag
        ours_here, theirs_here = mine.get(tag), other.get(tag)
        if ours_here == theirs_here:
            continue
        if ours_here is None or theirs_here is None:
            yield at, _missing(tag, ours_here, theirs_here)
            continue
        if ours_here["vr"] == theirs_here["vr"] == "SQ":
            items, their_items = ours_here.get("Value", []), theirs_here.get("Value", [])
            if not items and not their_items:
                yield at, "empty-sequence"
            elif len(items) != len(their_items):
                yield at, f"{len(items)} items, not {len(their_items)}"
            for number, (item, their_item) in enumerate(zip(items, their_items, strict=False), 1):
                yield from differences(item, their_item, f"{at}/{number}/")
            continue
        yield from ((at, reason) for reason in _explained(at, tag, ours_here, theirs_here))


def _missing(tag: str, mine: Attribute | None, other: Attribute | None) -> str:
    if mine is None and tag.endswith("0000"):
        return "group-length"
    if mine is None and tag == "FFFCFFFC":
        return "trailing-padding"
    if tag == "00080005":
        return "character-set"
    return f"{mine} against {other}"


def _explained(path: str, tag: str, mine: Attribute, other: Attribute) -> list[str]:
    if tag == "00080005":
        return ["character-set"] if mine == {"vr": "CS", "Value": ["ISO_IR 192"]} else [f"{mine}"]
    wrong = [f"{mine} against {other}"]
    if mine["vr"] != other["vr"]:
        return wrong
    if "BulkDataURI" in mine:
        if mine["BulkDataURI"] != f"bulkdata/{path}":
            return wrong
        return [] if "BulkDataURI" in other else ["pixel-data"] if tag == "7FE00010" else wrong
    if "InlineBinary" in mine and "InlineBinary" in other:
        size = _WORD.get(mine["vr"])
        swapped = size and _swapped(base64.b64decode(mine["InlineBinary"]), size)
        return ["little-endian"] if swapped == base64.b64decode(other["InlineBinary"]) else wrong
    values, their_values = mine.get("Value", []), other.get("Value", [])
    if not values and [value for value in their_values if value not in ("", None)] == [""]:
        return ["padding"]
    if len(values) != len(their_values):
        return wrong
    return [
        _value(mine["vr"], value, their) for value, their in zip(values, their_values, strict=True) if value != their
    ]


def _value(vr: str, mine: Any, other: Any) -> str:
    if mine is None and (
        other is None or not (other if isinstance(other, str) else "".join(other.values())).strip(" \0")
    ):
        return "null"
    if isinstance(mine, str) and isinstance(other, str) and mine.strip(" \0") == other.strip(" \0"):
        return "padding"
    if vr == "PN" and isinstance(mine, dict) and isinstance(other, dict):
        stripped = {name: group.strip(" \0") for name, group in other.items()}
        if mine == {name: group for name, group in stripped.items() if group}:
            return "empty-group" if "" in other.values() else "padding"
    if vr in ("FL", "FD") and isinstance(mine, str) and repr(float(mine)) == repr(other):
        return "string-number"
    if vr in ("SV", "UV") and isinstance(mine, str) and int(mine) == other and abs(other) >= 1 << 53:
        return "string-number"
    if vr in ("DS", "IS") and isinstance(mine, str) and (repr(float(mine)) == repr(float(other)) or int(mine) == other):
        return "text-number"
    return f"{vr}: {mine!r} against {other!r}"


def _swapped(data: bytes, size: int) -> bytes:
    return b"".join(data[at : at + size][::-1] for at in range(0, len(data), size))
