"""From a sealed tar and its journal to the pack's manifest: one line on the pack, one on each instance. Pure.

The manifest is made once and then kept with the tar, so that every upload of it has the same bytes, also after an
upgrade of what reads headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from producers.dicom.header import header_json
from producers.journal import Line, Member, Opened, Sealed
from schemas.blocks import Pairs
from schemas.errors import Invalid
from schemas.pack import IDENTITY, MANIFEST_VERSION, ZSTD, InstanceLine, PackLine, Sender, encode_manifest

MARK_HEADER_UNREADABLE = "header-unreadable"
"""The header has nothing but the UIDs: it could not be read, which what was accepted should never be."""
MARK_SALVAGED = "salvaged"
"""The pack holds what could be saved of one that the gateway's disk had damaged."""
SENDERS_MAX = 64
"""Distinct senders that a manifest names."""


@dataclass(frozen=True)
class Stored:
    """What of a pack is put into S3: the tar itself, or its blocks compressed."""

    size: int
    sha256: str
    blocks: Pairs = ()

    @property
    def encoding(self) -> str:
        """As the manifest names it."""
        return ZSTD if self.blocks else IDENTITY


def manifest(opened: Opened, sealed: Sealed, lines: Sequence[Line], tar: memoryview, stored: Stored) -> bytes:
    """The gzipped manifest of a tar. Same input, same bytes."""
    members = [x for x in lines if isinstance(x, Member)]
    pack = PackLine(
        version=MANIFEST_VERSION,
        pack_id=opened.pack_id,
        study_uid=opened.study_uid,
        site=opened.site,
        issuer=opened.issuer,
        gateway=opened.gateway,
        size=stored.size,
        sha256=stored.sha256,
        encoding=stored.encoding,
        blocks=stored.blocks,
        instances=len(members),
        repeats=sealed.repeats,
        senders=tuple(dict.fromkeys(m.sender for m in members))[:SENDERS_MAX],
        opened=opened.opened,
        sealed=sealed.sealed,
        marks=(MARK_SALVAGED,) if opened.salvages else (),
    )
    return encode_manifest(pack, _instances(members, tar))


def first_sender(lines: Iterable[Line]) -> Sender:
    """Who sent the first instance of a pack."""
    return next(x.sender for x in lines if isinstance(x, Member))


def _instances(members: Sequence[Member], tar: memoryview) -> Iterator[InstanceLine]:
    for m in members:
        header, frames, marks = _header(m, tar[m.offset + m.dataset_offset : m.offset + m.length])
        yield InstanceLine(
            sop_uid=m.sop_uid,
            series_uid=m.series_uid,
            study_uid=m.study_uid,
            sop_class=m.sop_class,
            transfer_syntax=m.transfer_syntax,
            offset=m.offset,
            length=m.length,
            dataset_offset=m.dataset_offset,
            sha256=m.sha256,
            received=m.received,
            marks=tuple(sorted({*m.marks, *marks})),
            frames=frames,
            header=header,
        )


def _header(member: Member, dataset: memoryview) -> tuple[msgspec.Raw, msgspec.Raw, tuple[str, ...]]:
    """Header and frames as JSON, and marks. One header that cannot be read does not keep its pack from the archive."""
    try:
        found = header_json(dataset, member.transfer_syntax, pick=frozenset())
    except Invalid:
        uids = {
            "00080016": member.sop_class,
            "00080018": member.sop_uid,
            "0020000D": member.study_uid,
            "0020000E": member.series_uid,
        }
        plain = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items()}
        return msgspec.Raw(msgspec.json.encode(plain)), msgspec.Raw(b"null"), (MARK_HEADER_UNREADABLE,)
    return msgspec.Raw(found.json), msgspec.Raw(found.frames.json()), found.marks
