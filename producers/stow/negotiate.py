"""What a STOW-RS request is and how its answer is wanted (PS3.18 §8.7, §10.5.1, §10.5.3). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from producers.stow.multipart import media_type
from schemas.errors import Invalid

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
DICOM_XML: Final = "application/dicom+xml"
MULTIPART: Final = "multipart/related"
CODINGS: Final = {"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
"""Content-Encoding → how it is undone; "" for nothing to undo."""

METADATA: Final = frozenset((DICOM_JSON, DICOM_XML))
_KINDS: Final = METADATA | {DICOM}
_ANSWERS: Final = {
    DICOM_JSON: DICOM_JSON,
    "application/json": DICOM_JSON,
    "*/*": DICOM_JSON,
    "application/*": DICOM_JSON,
    DICOM_XML: DICOM_XML,
}


@dataclass(frozen=True)
class Kind:
    """What the body holds: `of` DICOM files, or metadata (METADATA) with bulk data behind them."""

    of: str
    multipart: bool
    boundary: str
    coding: str
    """A value of CODINGS."""


def kind(content_type: str, content_encoding: str) -> Kind:
    """Raises Invalid(`media-type`, `content-coding`) for what is not stored here, and for a boundary that is none."""
    coding = CODINGS.get(content_encoding.strip().lower())
    if coding is None:
        raise Invalid("content-coding", "a body may be encoded in gzip or deflate, once")
    found, parameters = media_type(content_type)
    if found in _KINDS:
        return Kind(found, False, "", coding)
    of = parameters.get("type", DICOM).partition(";")[0].strip().lower()
    if found == MULTIPART and of in _KINDS:
        return Kind(of, True, parameters.get("boundary", ""), coding)
    raise Invalid("media-type")


def answer_type(accept: str) -> str:
    """DICOM_JSON or DICOM_XML, what the client would rather have; "" when it takes neither (PS3.18 §8.7.4)."""
    best, answer = 0.0, ""
    for text in accept.split(",") if accept.strip() else ("*/*",):
        name, *parameters = (p.strip() for p in text.split(";"))
        quality = _quality(parameters)
        # A range as good as a type before it changes nothing: JSON first.
        if quality > best and (found := _ANSWERS.get(name.lower())):
            best, answer = quality, found
    return answer


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
