"""What all corrections of a study come to: the column `overlay` of its row, laid over everything that leaves.

Made by the projection of study.corrections from all of a study's corrections in the order of the log; read by whoever
answers. A study without corrections has none.
"""

from __future__ import annotations

import msgspec

from schemas.errors import Defect


class Rejection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something is hidden."""

    id: str
    """Of the correction."""
    code: str
    until: int | None = None
    """Copies that arrived after this offset of study.arrivals are shown."""

    def hides(self, record_offset: int) -> bool:
        """Whether a copy is hidden that arrived at this offset."""
        return self.until is None or record_offset <= self.until


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the copies of an instance is served."""

    id: str
    sha256: str
    as_of_offset: int
    """Conflicts with copies that arrived after it are not decided."""


class Overlay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that people decided of a study. Attributes are tag → value as in PS3.5 §6.2."""

    revision: int
    """Offset of the last correction in study.corrections."""
    patient_key: str = ""
    """Whose the study is; "": whose it was."""
    study: dict[str, str] = {}
    """Of patient and study."""
    series: dict[str, dict[str, str]] = {}
    instances: dict[str, dict[str, str]] = {}
    """By SOP Instance UID."""
    whole: Rejection | None = None
    rejected_series: dict[str, Rejection] = {}
    rejected: dict[str, Rejection] = {}
    """By SOP Instance UID."""
    served: dict[str, Choice] = {}
    """By SOP Instance UID."""

    @property
    def hides(self) -> bool:
        """Whether any of the study may be hidden."""
        return self.whole is not None or bool(self.rejected_series) or bool(self.rejected)


_decoder = msgspec.json.Decoder(Overlay)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode(overlay: Overlay) -> str:
    """As the column holds it."""
    return _encoder.encode(overlay).decode()


def decode(text: str) -> Overlay:
    """Raises Defect when another version of Sijil has written it."""
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError as e:
        raise Defect("studies holds an overlay of another shape: rebuild the read models") from e
