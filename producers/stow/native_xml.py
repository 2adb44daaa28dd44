"""The Native DICOM Model (PS3.19 §A.1) to the DICOM JSON Model (PS3.18 §F.2), for metadata that come as XML. Pure.

A document type declaration, by which entities could be made, is refused. No error holds a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from xml.parsers import expat

from schemas.errors import Invalid

DEPTH_MAX: Final = 400
"""Elements within elements: three for each level of sequences, and a little."""
_GROUPS: Final = frozenset(("Alphabetic", "Ideographic", "Phonetic"))
_COMPONENTS: Final = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


@dataclass
class _Node:
    """An element that is open, and what was found in it."""

    name: str
    attributes: dict[str, str]
    values: list[Any] = field(default_factory=list)
    """Of an attribute: its values, persons' names, items."""
    parts: dict[str, Any] = field(default_factory=dict)
    """Of a dataset: attributes by tag; of a name: groups, of a group: components; of an attribute: the rest."""
    text: list[str] = field(default_factory=list)


class _Reader:
    def __init__(self) -> None:
        self.dataset: dict[str, Any] | None = None
        self._open: list[_Node] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= DEPTH_MAX:
            raise Invalid("metadata-too-deep", "sequences are nested deeper than the bound")
        self._open.append(_Node(name.rpartition(":")[2], attributes))

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1].text.append(data)

    def end(self, _: str) -> None:
        node = self._open.pop()
        above = self._open[-1] if self._open else None
        if above is None:
            if node.name != "NativeDicomModel":
                raise _no_model()
            self.dataset = node.parts
            return
        match node.name:
            case "DicomAttribute":
                above.parts[node.attributes.get("tag", "")] = _element(node)
            case "Value":
                above.values.append("".join(node.text) or None)
            case "Item":
                above.values.append(node.parts)
            case "PersonName":
                above.values.append(node.parts)
            case "InlineBinary":
                above.parts["InlineBinary"] = "".join("".join(node.text).split())
            case "BulkData":
                above.parts["BulkDataURI"] = node.attributes.get("uri") or node.attributes.get("uuid", "")
            case name if name in _GROUPS:
                above.parts[name] = "^".join(node.parts.get(c, "") for c in _COMPONENTS).rstrip("^")
            case name if name in _COMPONENTS:
                above.parts[name] = "".join(node.text)
            case _:
                raise _no_model()


def _element(node: _Node) -> dict[str, Any]:
    vr = {"vr": node.attributes["vr"]} if node.attributes.get("vr") else {}
    return {**vr, **node.parts} if node.parts else {**vr, "Value": node.values}


def dataset(document: bytes) -> dict[str, Any]:
    """The dataset of one document. Raises Invalid(`metadata-xml`, `metadata-too-deep`)."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(document, True)
    except expat.ExpatError as e:
        raise _no_model() from e
    if reader.dataset is None:
        raise _no_model()
    return reader.dataset


def _refuse_doctype(*_: object) -> None:
    raise _no_model()


def _no_model() -> Invalid:
    return Invalid("metadata-xml", "the metadata are not in the Native DICOM Model")
