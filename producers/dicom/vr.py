"""Value representations of PS3.5 §6.2 as they stand in a dataset: two bytes each."""

from typing import Final

# 32-bit length behind two reserved bytes (PS3.5 §7.1.2, Table 7.1-1); the others have a 16-bit length.
LONG_VRS: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
VRS: Final = LONG_VRS | frozenset(
    (
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FD",
        b"FL",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
        b"ST",
        b"TM",
        b"UI",
        b"UL",
        b"US",
    )
)
