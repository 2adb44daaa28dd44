"""The transfer syntaxes that the archive takes, and how a dataset of each is encoded (PS3.5 §10 and Annex A).

One table for the presentation contexts of DIMSE, for what STOW-RS accepts, for the readers and for the conformance
statement. Not in it, so refused: JPIP (the pixels are elsewhere, behind a URL that will not live for years), SMPTE ST
2110 (live streams), the retired MIME, XML and Papyrus encodings, everything private, and what viewers do not decode yet
(JPEG XL, Deflated Image Frame): refused, a sender falls back to what every reader opens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

IMPLICIT_LE: Final = "1.2.840.10008.1.2"
EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
EXPLICIT_BE: Final = "1.2.840.10008.1.2.2"
DEFLATED_LE: Final = "1.2.840.10008.1.2.1.99"

# Value representations as they stand in a dataset (PS3.5 §6.2); the long ones have a length of 32 bits behind two
# reserved bytes, the others one of 16 bits (§7.1.2, Table 7.1-1).
LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
VRS: Final = LONG_VRS | frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the bytes of a dataset are to be read."""

    explicit: bool = True  # Explicit VR
    little: bool = True  # byte order
    deflated: bool = False  # raw deflate around the whole dataset
    encapsulated: bool = False  # pixel data in fragments
    video: bool = False  # one compressed stream: a fragment is no frame


_EXPLICIT: Final = Encoding()
_ENCAPSULATED: Final = Encoding(encapsulated=True)
_VIDEO: Final = Encoding(encapsulated=True, video=True)

TRANSFER_SYNTAXES: Final[Mapping[str, tuple[str, Encoding]]] = {
    EXPLICIT_LE: ("Explicit VR Little Endian", _EXPLICIT),
    IMPLICIT_LE: ("Implicit VR Little Endian", Encoding(explicit=False)),
    EXPLICIT_BE: ("Explicit VR Big Endian (retired)", Encoding(little=False)),
    DEFLATED_LE: ("Deflated Explicit VR Little Endian", Encoding(deflated=True)),
    "1.2.840.10008.1.2.1.98": ("Encapsulated Uncompressed Explicit VR Little Endian", _ENCAPSULATED),
    "1.2.840.10008.1.2.5": ("RLE Lossless", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.50": ("JPEG Baseline (Process 1)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.51": ("JPEG Extended (Process 2 and 4)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.52": ("JPEG Extended (Process 3 and 5, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.53": ("JPEG Spectral Selection (Process 6 and 8, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.54": ("JPEG Spectral Selection (Process 7 and 9, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.55": ("JPEG Full Progression (Process 10 and 12, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.56": ("JPEG Full Progression (Process 11 and 13, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless (Process 14)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.58": ("JPEG Lossless (Process 15, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.59": ("JPEG Extended, Hierarchical (Process 16 and 18, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.60": ("JPEG Extended, Hierarchical (Process 17 and 19, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.61": ("JPEG Spectral Selection, Hierarchical (Process 20 and 22, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.62": ("JPEG Spectral Selection, Hierarchical (Process 21 and 23, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.63": ("JPEG Full Progression, Hierarchical (Process 24 and 26, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.64": ("JPEG Full Progression, Hierarchical (Process 25 and 27, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.65": ("JPEG Lossless, Hierarchical (Process 28, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.66": ("JPEG Lossless, Hierarchical (Process 29, retired)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless, First-Order Prediction (Process 14, Selection Value 1)", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS Lossless", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS Near-Lossless", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 Lossless Only", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.92": ("JPEG 2000 Part 2 Multi-component Lossless Only", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.93": ("JPEG 2000 Part 2 Multi-component", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.201": ("High-Throughput JPEG 2000 Lossless Only", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.202": ("High-Throughput JPEG 2000 with RPCL Options Lossless Only", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.203": ("High-Throughput JPEG 2000", _ENCAPSULATED),
    "1.2.840.10008.1.2.4.100": ("MPEG2 Main Profile / Main Level", _VIDEO),
    "1.2.840.10008.1.2.4.100.1": ("Fragmentable MPEG2 Main Profile / Main Level", _VIDEO),
    "1.2.840.10008.1.2.4.101": ("MPEG2 Main Profile / High Level", _VIDEO),
    "1.2.840.10008.1.2.4.101.1": ("Fragmentable MPEG2 Main Profile / High Level", _VIDEO),
    "1.2.840.10008.1.2.4.102": ("MPEG-4 AVC/H.264 High Profile / Level 4.1", _VIDEO),
    "1.2.840.10008.1.2.4.102.1": ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", _VIDEO),
    "1.2.840.10008.1.2.4.103": ("MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", _VIDEO),
    "1.2.840.10008.1.2.4.103.1": ("Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", _VIDEO),
    "1.2.840.10008.1.2.4.104": ("MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video", _VIDEO),
    "1.2.840.10008.1.2.4.104.1": ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video", _VIDEO),
    "1.2.840.10008.1.2.4.105": ("MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video", _VIDEO),
    "1.2.840.10008.1.2.4.105.1": ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video", _VIDEO),
    "1.2.840.10008.1.2.4.106": ("MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", _VIDEO),
    "1.2.840.10008.1.2.4.106.1": ("Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", _VIDEO),
    "1.2.840.10008.1.2.4.107": ("HEVC/H.265 Main Profile / Level 5.1", _VIDEO),
    "1.2.840.10008.1.2.4.108": ("HEVC/H.265 Main 10 Profile / Level 5.1", _VIDEO),
}


def encoding_of(transfer_syntax: str) -> Encoding:
    """How to read a dataset of `transfer_syntax`; one not in the table as Explicit VR Little Endian (PS3.5 §A.4)."""
    entry = TRANSFER_SYNTAXES.get(transfer_syntax)
    return entry[1] if entry else _EXPLICIT
