"""The pack: a plain tar of Part 10 files of one study, and the manifest beside it.

`<pack_id>.manifest.jsonl.gz`: a first line on the pack, then a line per instance. What the read models and `/metadata`
know of an instance they know from here; the headers (patient data) live in this object and never in an event.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator

import msgspec

from schemas.errors import Invalid

MANIFEST_VERSION = 1
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

    version: int = MANIFEST_VERSION
    pack_id: str
    study_uid: str
    site: str
    issuer: str
    """Issuer of local identifiers when the dataset names none: the sending site's."""
    gateway: str
    """`ce_source` of the gateway."""
    size: int
    """Bytes of the tar."""
    sha256: str
    """Of the tar, hex."""
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
    encoding: str = "identity"
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
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def pack_key(pack_id: str) -> str:
    """Object key of a pack's tar. The shard in front spreads keys over an S3 service's partitions."""
    return f"packs/{pack_id[-2:]}/{pack_id}.tar"


def manifest_key(pack_id: str) -> str:
    """Object key of a pack's manifest, beside the tar."""
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
    if pack.version != MANIFEST_VERSION:
        raise Invalid("manifest-version", f"manifest version {pack.version} is not known")
    instances = tuple(lines)
    if len(instances) != pack.instances:
        raise Invalid("manifest-count")
    checked = []
    for line in instances:
        if not isinstance(line, InstanceLine) or line.study_uid != pack.study_uid:
            raise Invalid("manifest-instance")
        checked.append(line)
    return Manifest(pack, tuple(checked))


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
