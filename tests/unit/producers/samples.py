"""Small DICOM files and spools for the tests of the gateway."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from producers.body import Held
from producers.open_pack import Instance
from producers.shelf import Limits
from producers.spool import Feeder, Kept, Rules, Spool
from schemas.pack import Sender

EXPLICIT_LE = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "1.2.826.0.1.3680043.9.1"
SENDER = Sender(door="stow", address="127.0.0.1")

LIMITS = Limits(low_free=0, full_free=0, spool_max=1 << 40, cache_hours=24.0)
RULES = Rules(seal_bytes=1 << 20, own_bytes=1 << 30, idle_s=60.0, release_s=60.0)


def element(group: int, number: int, vr: str, value: bytes) -> bytes:
    """A data element of Explicit VR Little Endian."""
    value += b"\0" * (len(value) % 2) if vr in ("UI", "OB", "OW") else b" " * (len(value) % 2)
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return struct.pack("<HH2sHI", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def dataset(
    sop: str, *, study: str = STUDY, series: str = STUDY + ".1", pixels: bytes = b"\1\2\3\4", **more: str
) -> bytes:
    """A CT slice's dataset, as small as can be."""
    return b"".join(
        (
            element(0x0008, 0x0016, "UI", more.get("sop_class", CT).encode()),
            element(0x0008, 0x0018, "UI", sop.encode()),
            element(0x0008, 0x0060, "CS", b"CT"),
            element(0x0010, 0x0010, "PN", more.get("name", "TEST^CANARY").encode()),
            element(0x0010, 0x0020, "LO", b"CANARY-ID-1"),
            element(0x0020, 0x000D, "UI", study.encode()),
            element(0x0020, 0x000E, "UI", series.encode()),
            element(0x7FE0, 0x0010, "OW", pixels),
        )
    )


def file(sop: str, **options: Any) -> bytes:
    """The slice as a DICOM file."""
    meta = b"".join(
        (
            element(0x0002, 0x0001, "OB", b"\0\1"),
            element(0x0002, 0x0002, "UI", options.get("sop_class", CT).encode()),
            element(0x0002, 0x0003, "UI", sop.encode()),
            element(0x0002, 0x0010, "UI", EXPLICIT_LE.encode()),
        )
    )
    head = bytes(128) + b"DICM" + element(0x0002, 0x0000, "UL", struct.pack("<I", len(meta))) + meta
    return head + dataset(sop, **options)


def dataset_offset(data: bytes) -> int:
    """Where the dataset of one of these files begins."""
    return 144 + int(struct.unpack_from("<I", data, 140)[0])


def instance(sop: str, data: bytes, study: str = STUDY) -> Instance:
    """What the doors would have found in `data`."""
    return Instance(study, study + ".1", sop, CT, EXPLICIT_LE, dataset_offset(data), SENDER)


def spool(folder: Path, *, rules: Rules = RULES, limits: Limits = LIMITS, **more: Any) -> Spool:
    """A spool of its own folder."""
    return Spool(folder, rules, limits, site="LOCAL", gateway="/gateway/LOCAL/1", **more)


def store(feeder: Feeder, sop: str, data: bytes | None = None, study: str = STUDY) -> Kept:
    """Store one file and wait until it is durable."""
    data = file(sop, study=study) if data is None else data
    body = Held((data,))
    return feeder.append(instance(sop, data, study), body, site="LOCAL", issuer="LOCAL").result(60)


def seal(spool: Spool, study: str) -> None:
    """Seal what is open of a study."""
    for key, pack in spool._open_packs():
        if key[0] == study:
            spool._seal(key, pack, "asked")
