"""Every reason to refuse what claims to be DICOM, and every mark on what was accepted though it bends the standard.

A *reason* is the `reason` of the `schemas.errors.Invalid` that the pure readers of this package raise. A *mark* is kept
with the instance: the bytes are stored as they came, and the mark says what had to be guessed to read them. Codes go
into events and logs: they are fixed strings and never carry a value of the dataset.
"""

from collections.abc import Mapping
from typing import Final

from schemas.errors import Invalid

REASONS: Final[Mapping[str, str]] = {
    # the file (PS3.10 §7)
    "not-dicom": "neither a DICOM file nor a dataset in any encoding of PS3.5",
    "truncated": "the bytes end inside an element, a sequence or the pixel data",
    "no-transfer-syntax": "no transfer syntax is named and the dataset's encoding cannot be told",
    "file-meta-too-long": "the File Meta Information does not end within its bound",
    "dicomdir": "a Media Storage Directory: it lists instances and is none",
    # the dataset (PS3.5 §7)
    "damaged-structure": "item or delimiter tags where the encoding allows none",
    "too-many-elements": "more elements than the bound",
    "too-deep": "sequences of undefined length nested deeper than the bound",
    "damaged-deflate": "the deflated dataset is no deflate stream (PS3.5 §A.5)",
    "inflates-too-large": "the deflated dataset is longer than the bound when inflated",
    # writing File Meta Information
    "bad-file-meta-value": "a value that File Meta Information cannot hold (PS3.10 §7.1)",
}

MARKS: Final[Mapping[str, str]] = {
    # File Meta Information (PS3.10 §7.1)
    "no-preamble": "the 128 bytes of preamble, or they and DICM, are missing",
    "no-file-meta": "there is no File Meta Information: a bare dataset",
    "no-group-length": "(0002,0000) is missing",
    "wrong-group-length": "(0002,0000) does not lead to the end of group 0002",
    "implicit-file-meta": "the File Meta Information is in Implicit VR",
    "guessed-transfer-syntax": "no (0002,0010): the encoding was told from the dataset's first element",
    # structure (PS3.5 §7)
    "wrong-transfer-syntax": "the dataset is not in the VR encoding or byte order that its transfer syntax says",
    "zlib-deflate": "deflated with a zlib header, which PS3.5 §A.5 does not have",
    "trailing-bytes": "bytes of zero after the last element",
    "unordered-tags": "elements not in ascending order of their tags, or a tag twice: the first one counts",
    "unknown-vr": "a value representation that PS3.5 §6.2 does not have: read as UN",
    "damaged-sequence": "a sequence whose items cannot be read: its value is left out of the header",
    "too-much-header": "values left out of the header because it passed a bound",
    # values (PS3.5 §6.2)
    "bad-value-length": "a binary number whose length is no multiple of its size: given as UN",
    "bad-number": "a decimal or integer string that is no number: kept as text",
    # character sets (PS3.3 §C.12.1.1.2)
    "unknown-charset": "a Specific Character Set that is no defined term",
    "wrong-charset": "text that is not in the Specific Character Set: its encoding was guessed",
    "guessed-charset": "text beyond ASCII without a Specific Character Set: its encoding was guessed",
    # pixel data (PS3.5 §8, §A.4)
    "bad-offset-table": "a Basic or Extended Offset Table that does not point to the fragments: not used",
    "unknown-frames": "pixel data whose frames cannot be told apart",
}


def refuse(reason: str) -> Invalid:
    """The error for `reason`, a key of REASONS; its message is the table's and holds nothing of the input."""
    return Invalid(reason, REASONS[reason])
