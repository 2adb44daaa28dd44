"""A dataset in Explicit VR Little Endian written as Implicit VR Little Endian: for a receiver that takes nothing else.

Every application entity takes Implicit VR (PS3.5 §10.1), few only that. So pydicom does it, in memory; values are
carried over as they are, private elements included. Pure.
"""

from __future__ import annotations

from io import BytesIO

from pydicom import config, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from schemas.errors import Invalid


def to_implicit(part10: bytes) -> bytes:
    """The dataset of an Explicit VR Little Endian file. Raises Invalid(`not-convertible`)."""
    try:
        found = dcmread(BytesIO(part10), force=True)
        out = DicomBytesIO()
        out.is_implicit_VR, out.is_little_endian = True, True
        with config.disable_value_validation():
            write_dataset(out, found)
    except Exception as error:  # pydicom raises what it likes
        raise Invalid("not-convertible", "the dataset cannot be written as Implicit VR Little Endian") from error
    return out.getvalue()
