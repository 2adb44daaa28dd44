"""DICOM JSON as XML: the Native DICOM Model (PS3.19 §A.1), for `application/dicom+xml` (PS3.18 §8.7.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from schemas.dicom_json import PN_GROUPS

MEDIA_TYPE = "application/dicom+xml"

_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def document(dataset: Mapping[str, Any]) -> bytes:
    """A dataset as a document of its own."""
    parts = ('<?xml version="1.0" encoding="UTF-8"?>', "<NativeDicomModel>", *_attributes(dataset))
    return "".join((*parts, "</NativeDicomModel>")).encode()


def _attributes(dataset: Mapping[str, Any]) -> Iterator[str]:
    for tag in sorted(dataset):
        element = dataset[tag]
        keyword = keyword_for_tag(int(tag, 16))
        named = f" keyword={quoteattr(keyword)}" if keyword else ""
        yield f'<DicomAttribute tag="{tag}" vr={quoteattr(str(element["vr"]))}{named}>'
        yield from _content(element)
        yield "</DicomAttribute>"


def _content(element: Mapping[str, Any]) -> Iterator[str]:
    if "InlineBinary" in element:
        yield f"<InlineBinary>{_text(element['InlineBinary'])}</InlineBinary>"
    if "BulkDataURI" in element:
        yield f"<BulkData uri={quoteattr(_NOT_XML.sub('', str(element['BulkDataURI'])))}/>"
    for n, value in enumerate(element.get("Value") or (), 1):
        if value is None:
            continue
        if element["vr"] == "SQ":
            yield f'<Item number="{n}">'
            yield from _attributes(value)
            yield "</Item>"
        elif element["vr"] == "PN" and isinstance(value, dict):
            yield f'<PersonName number="{n}">'
            yield from (_group(name, str(value[name])) for name in PN_GROUPS if value.get(name))
            yield "</PersonName>"
        else:
            yield f'<Value number="{n}">{_text(value)}</Value>'


def _group(name: str, text: str) -> str:
    parts = zip(_NAME_PARTS, text.split("^"), strict=False)
    inner = "".join(f"<{part}>{_text(word)}</{part}>" for part, word in parts if word)
    return f"<{name}>{inner}</{name}>"


def _text(value: Any) -> str:
    return escape(_NOT_XML.sub("", str(value)))
