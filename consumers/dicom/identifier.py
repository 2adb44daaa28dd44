"""C-FIND identifiers (PS3.4 §C.4.1): an identifier becomes a Query, what was found becomes an identifier. Pure.

Matching is that of QIDO-RS (`consumers.api.match`). An answer has the keys that were asked for, those without a value
empty, and always the unique keys down to its level.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items

from consumers.api.attributes import BY_TAG, Attribute, Level, find
from consumers.api.qido import Condition, Kind, Query, condition_of
from schemas.dicom_json import Dataset as Json
from schemas.dicom_json import name_text
from schemas.errors import Invalid
from schemas.levels import PATIENT_TOTALS

PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"

CHARACTER_SET, LEVEL, RETRIEVE_AE, TIMEZONE = 0x00080005, 0x00080052, 0x00080054, 0x00080201
UTF8 = "ISO_IR 192"
CODECS: Mapping[str, str] = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 203": "iso8859-15",
    "ISO_IR 166": "tis-620",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
"""Character sets of one encoding (PS3.3 Table C.12-2, C.12-5) in which answers are given to who asks in them."""


class Depth(Enum):
    """Query/retrieve levels (PS3.4 §C.6): (name, level of the search, unique keys from the top)."""

    PATIENT = ("PATIENT", Level.STUDY, ("00100020",))
    STUDY = ("STUDY", Level.STUDY, ("00100020", "0020000D"))
    SERIES = ("SERIES", Level.SERIES, ("00100020", "0020000D", "0020000E"))
    IMAGE = ("IMAGE", Level.INSTANCE, ("00100020", "0020000D", "0020000E", "00080018"))

    def __init__(self, text: str, level: Level, unique: tuple[str, ...]) -> None:
        self.text, self.level, self.unique = text, level, unique


PATIENT_TAGS = frozenset("00100010 00100020 00100021 00100024 00100030 00100032 00100040 00101000 00101001".split())
"""What a search of patients may name."""


@dataclass(frozen=True)
class Extended:
    """What was negotiated (PS3.4 Table C.5-1)."""

    relational: bool = False
    combined: bool = False
    fuzzy: bool = False

    @classmethod
    def of(cls, information: bytes) -> Extended:
        """Of the requestor's application information: all that it asks for of these is agreed to."""
        flags = [byte == 1 for byte in information[:3].ljust(3, b"\0")]
        return cls(*flags)

    @staticmethod
    def answer(information: bytes) -> bytes:
        """The application information of the acceptor, as long as the requestor's."""
        return bytes(byte if n < 3 and byte == 1 else 0 for n, byte in enumerate(information[:5]))


@dataclass(frozen=True)
class Asked:
    """An identifier, read."""

    depth: Depth
    query: Query
    keys: Dataset
    """As it came: what an answer has."""
    unsupported: bool
    """Whether it has keys that are not matched (status FF01)."""

    @property
    def totals(self) -> bool:
        """Whether what a patient has is asked for."""
        return any(f"{e.tag:08X}" in PATIENT_TOTALS for e in self.keys)


def read(identifier: Dataset, sop_class: str, extended: Extended) -> Asked:
    """Raises Invalid(`query-level`, `unique-key-missing`, `value-…`, `uid-…`): status A900."""
    depth = _depth(identifier, sop_class)
    conditions: dict[str, Condition] = {}
    include: set[str] = set()
    unsupported = False
    for element in identifier:
        if element.tag in (CHARACTER_SET, LEVEL, RETRIEVE_AE, TIMEZONE) or element.tag.element == 0:
            continue
        tag = f"{element.tag:08X}"
        if tag in PATIENT_TOTALS or tag == "00080056":
            continue
        if not _supported(tag, depth):
            unsupported = True
            continue
        include.add(tag)
        for path, text in asked_of(element, tag):
            attribute = _attribute(path) if text else None
            unsupported = unsupported or bool(text and attribute is None)
            condition = condition_of(attribute, text) if attribute else None
            if condition is not None:
                conditions[condition.attribute.tag] = condition
    if not extended.relational:
        _check_above(depth, sop_class, conditions)
    query = Query(
        level=depth.level,
        conditions=tuple(conditions.values()),
        include=frozenset(include),
        fuzzy=extended.fuzzy,
        combined=extended.combined,
    )
    return Asked(depth, query, identifier, unsupported)


def _depth(identifier: Dataset, sop_class: str) -> Depth:
    text = str(identifier.get("QueryRetrieveLevel") or "").strip()
    depth = next((d for d in Depth if d.text == text), None)
    if depth is None or (depth is Depth.PATIENT and sop_class != PATIENT_ROOT):
        raise Invalid("query-level", "no query/retrieve level of this information model")
    return depth


def _supported(tag: str, depth: Depth) -> bool:
    attribute = BY_TAG.get(tag)
    if attribute is None or (depth is Depth.PATIENT and tag not in PATIENT_TAGS):
        return False
    return attribute.level <= depth.level


def _attribute(path: str) -> Attribute | None:
    try:
        return find(path)
    except Invalid:
        return None


def asked_of(element: DataElement, path: str) -> Iterator[tuple[str, str]]:
    """Paths of attributes and what they must be; of a sequence, those of its one item (PS3.4 §C.2.2.2.6)."""
    if element.VR != "SQ":
        yield path, text_of(element.value)
        return
    for item in list(element.value or ())[:1]:
        for inner in item:
            yield from asked_of(inner, f"{path}.{inner.tag:08X}")


def text_of(value: Any) -> str:
    """A value of an identifier as it was sent."""
    if value is None:
        return ""
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(map(str, value))
    return str(value)


def _check_above(depth: Depth, sop_class: str, conditions: Mapping[str, Condition]) -> None:
    """Hierarchical queries name one value of each unique key above their level (PS3.4 §C.4.1.2.1)."""
    above = depth.unique[:-1] if sop_class == PATIENT_ROOT else depth.unique[1:-1]
    for tag in above:
        condition = conditions.get(tag)
        if condition is None or len(condition.values) != 1 or condition.kind not in (Kind.UIDS, Kind.TEXT):
            raise Invalid(
                "unique-key-missing", f"a query at this level names one {tag}, or relational ones are negotiated"
            )


# ------------------------------------------------------------------------------------------------ answers


def written(asked: Asked, found: Json, ae_title: str) -> Dataset:
    """The identifier of a pending response: what was asked for of `found`, in the query's character set if that has
    every character of it, else in UTF-8.
    """
    answer = Dataset()
    wanted: dict[str, DataElement | None] = {f"{e.tag:08X}": e for e in asked.keys if _shown(e.tag)}
    for tag in asked.depth.unique:
        wanted.setdefault(tag, None)
    for tag, key in wanted.items():
        if key is None and tag not in found:
            continue
        answer.add(element_of(tag, found.get(tag), key))
    answer.add(plain(LEVEL, "CS", asked.depth.text))
    answer.add(plain(RETRIEVE_AE, "AE", ae_title))
    answer.add(plain(0x00080056, "CS", "ONLINE"))
    if charset := character_set(text_of(asked.keys.get("SpecificCharacterSet")), texts(answer)):
        answer.add(plain(CHARACTER_SET, "CS", charset))
    return answer


def _shown(tag: Any) -> bool:
    return tag not in (CHARACTER_SET, LEVEL, RETRIEVE_AE) and tag.element != 0


def character_set(asked: str, texts: Iterable[str]) -> str:
    """The Specific Character Set of an answer to a query in `asked`; empty: the default repertoire."""
    joined = "".join(texts)
    if joined.isascii() and asked in CODECS:
        return asked
    codec = CODECS.get(asked)
    if codec is None:
        return "" if joined.isascii() and asked != UTF8 else UTF8
    try:
        joined.encode(codec)
    except UnicodeEncodeError:
        return UTF8
    return asked


def texts(dataset: Dataset) -> Iterator[str]:
    """All values, those of items too."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value or ():
                yield from texts(item)
        else:
            yield text_of(element.value)


def plain(tag: int, vr: str, value: Any) -> DataElement:
    """An element whose value nobody checks: it comes from what the archive has."""
    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


def element_of(tag: str, found: Mapping[str, Any] | None, key: DataElement | None) -> DataElement:
    """An element of DICOM JSON as pydicom has it; of a sequence's items the keys asked for, or all."""
    number = int(tag, 16)
    vr = str(found["vr"]) if found else _vr(number, key)
    values = list(found.get("Value", ())) if found else []
    if vr == "SQ":
        inner = next(iter(key.value or ()), None) if key is not None and key.VR == "SQ" else None
        return plain(number, vr, Items([_item(v, inner) for v in values if isinstance(v, dict)]))
    if vr == "PN":
        values = [name_text(v) for v in values]
    elif vr in ("IS", "DS"):
        values = [str(v) for v in values]
    if not values or all(v is None for v in values):
        return plain(number, vr, None)
    return plain(number, vr, values[0] if len(values) == 1 else values)


def _item(found: Mapping[str, Any], keys: Dataset | None) -> Dataset:
    item = Dataset()
    if keys is None or not len(keys):
        for tag, element in found.items():
            item.add(element_of(tag, element, None))
        return item
    for key in keys:
        tag = f"{key.tag:08X}"
        item.add(element_of(tag, found.get(tag), key))
    return item


def _vr(tag: int, key: DataElement | None) -> str:
    if key is not None and key.VR != "UN":
        return str(key.VR)
    return dictionary_VR(tag).split(" or ")[0] if dictionary_has_tag(tag) else "UN"
