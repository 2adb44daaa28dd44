"""The pack: a tar of Part 10 files of one study, and the manifest beside it.

The object is the tar itself (`.tar`), or the tar in blocks of zstd (`.tar.zst`, schemas.blocks), which `tar -xf` opens.

`<pack_id>.manifest.jsonl.gz`: a first line on the pack, then a line per instance. What the read models and `/metadata`
know of an instance they know from here; the headers (patient data) live in this object and never in an event.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator

import msgspec

from schemas.blocks import Blocks, Pairs
from schemas.errors import Invalid

MANIFEST_VERSION = 2
VERSIONS = frozenset({1, 2})
"""Those that are read: version 1 knew plain tars alone, and says of them what version 2 says."""
IDENTITY, ZSTD = "identity", "zstd"
"""Encodings of a pack: the object is the tar; or its blocks, each a zstd frame."""
SUFFIXES = {IDENTITY: "tar", ZSTD: "tar.zst"}
MANIFEST_SIZE_MAX = 1 << 30
"""Bound on an inflated manifest: no pack has that many headers; anything larger is an attack or damage."""


class Sender(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who sent the instances of a pack."""

    door: str
    """`dimse`, `stow` or `import`."""
    ae_title: str = ""
    address: str = ""


class PackLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="pack", tag_field="line"):
    """First line: the pack as a whole. Study-level attributes are those of its first instance, as DICOM JSON."""

    version: int = 1
    """What a line without one is: version 1 left it out."""
    pack_id: str
    study_uid: str
    site: str
    issuer: str
    """Issuer of local identifiers when the dataset names none: the sending site's."""
    gateway: str
    """`ce_source` of the gateway."""
    size: int
    """Bytes of the object."""
    sha256: str
    """Of the object, hex."""
    encoding: str = IDENTITY
    blocks: Pairs = ()
    """Of a compressed object: bytes of the tar and of the object, block by block (`schemas.blocks`)."""
    instances: int
    repeats: int = 0
    """Identical instances that came again while the pack was open: acknowledged, recorded here, stored once."""
    senders: tuple[Sender, ...] = ()
    opened: str
    """RFC 3339, UTC: when the first instance came; data, never order."""
    sealed: str
    marks: tuple[str, ...] = ()


class InstanceLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="instance", tag_field="line"):
    """One instance: where its bytes lie and what its header says."""

    sop_uid: str
    series_uid: str
    study_uid: str
    sop_class: str
    transfer_syntax: str
    offset: int
    """Of the Part 10 file in the tar (behind the tar header)."""
    length: int
    """Of the Part 10 file."""
    dataset_offset: int
    """Of the dataset, from the start of the file (behind preamble and File Meta)."""
    sha256: str
    """Of the dataset bytes as received, hex."""
    received: str = ""
    marks: tuple[str, ...] = ()
    frames: msgspec.Raw = msgspec.Raw(b"null")
    """Frame offsets from the start of the dataset, as `producers.dicom.frames.Frames` writes them."""
    header: msgspec.Raw
    """The dataset as DICOM JSON (PS3.18 Annex F) without bulk data: one JSON object."""


class Manifest(msgspec.Struct, frozen=True):
    """A manifest in memory."""

    pack: PackLine
    instances: tuple[InstanceLine, ...]


Line = PackLine | InstanceLine
_encoder = msgspec.json.Encoder()
_pack_line: msgspec.json.Decoder[PackLine] = msgspec.json.Decoder(PackLine)
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def pack_key(pack_id: str, encoding: str) -> str:
    """Object key of a pack. The shard in front spreads keys over an S3 service's partitions."""
    return f"packs/{pack_id[-2:]}/{pack_id}.{SUFFIXES[encoding]}"


def manifest_key(pack_id: str) -> str:
    """Object key of a pack's manifest, beside it."""
    return f"packs/{pack_id[-2:]}/{pack_id}.manifest.jsonl.gz"


def encode_manifest(pack: PackLine, instances: Iterable[InstanceLine]) -> bytes:
    """The gzipped manifest. Deterministic: the same input gives the same bytes (no time in the gzip header)."""
    lines = [_encoder.encode(pack), *(_encoder.encode(i) for i in instances)]
    return gzip.compress(b"\n".join(lines) + b"\n", compresslevel=3, mtime=0)


def decode_manifest(data: bytes) -> Manifest:
    """Raises Invalid(`manifest-…`) for anything that is no manifest or does not agree with itself."""
    lines = _lines(_inflate(data))
    pack = next(lines, None)
    if not isinstance(pack, PackLine):
        raise Invalid("manifest-no-pack-line")
    _known(pack)
    instances = tuple(lines)
    if len(instances) != pack.instances:
        raise Invalid("manifest-count")
    checked = []
    for line in instances:
        if not isinstance(line, InstanceLine) or line.study_uid != pack.study_uid:
            raise Invalid("manifest-instance")
        checked.append(line)
    return Manifest(pack, tuple(checked))


def decode_pack_line(data: bytes) -> PackLine:
    """The first line of a manifest alone. Raises Invalid(`manifest-…`)."""
    try:
        pack = _pack_line.decode(_inflate(data).partition(b"\n")[0])
    except msgspec.DecodeError as e:
        raise Invalid("manifest-no-pack-line") from e
    _known(pack)
    return pack


def _known(pack: PackLine) -> None:
    if pack.version not in VERSIONS:
        raise Invalid("manifest-version", f"manifest version {pack.version} is not known")
    if pack.encoding not in SUFFIXES:
        raise Invalid("manifest-encoding", f"packs of encoding {pack.encoding} cannot be read")
    if (pack.encoding == ZSTD) != bool(pack.blocks) or (pack.blocks and Blocks(pack.blocks).size != pack.size):
        raise Invalid("manifest-blocks")


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(data, MANIFEST_SIZE_MAX)
    except zlib.error as e:
        raise Invalid("manifest-gzip") from e
    if not inflater.eof:
        raise Invalid("manifest-gzip")
    return text


def _lines(text: bytes) -> Iterator[Line]:
    for raw in text.splitlines():
        try:
            yield _decoder.decode(raw)
        except msgspec.DecodeError as e:
            raise Invalid("manifest-line") from e
