"""Who somebody is, as a hospital said: the document in S3 that a `patient.stated` names. Names stand here and never on
the log (design, rule 3).
"""

from __future__ import annotations

import msgspec

from schemas.errors import Invalid


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """A person. Text that was not said is empty."""

    name: str
    """DICOM PN, groups by =."""
    number: str
    issuer: str
    """NATIONAL_ISSUER, or who issues the hospital's numbers."""
    birth_date: str
    """YYYYMMDD."""
    sex: str
    """M, F or O."""
    phone: str
    locals: tuple[str, ...] = ()
    """All of the hospital's own numbers."""
    locals_issuer: str = ""
    """Who issues them."""


_decoder = msgspec.json.Decoder(Stated)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode(stated: Stated) -> bytes:
    """The document."""
    return _encoder.encode(stated)


def decode(data: bytes) -> Stated:
    """Raises Invalid(`stated-document`), which quotes nothing of it."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("stated-document", "the document of a patient is damaged") from e
