"""Instances on their way to another application entity: in which transfer syntax, and their datasets' bytes.

As stored where the receiver takes that; else Explicit VR Little Endian, losslessly decoded; else the same as Implicit
VR; else not at all. Bytes are read by ranges of their packs while they are sent: memory is bounded by the pieces, and
by one instance where it has to be written again (as for WADO-RS: `consumers.api.retrieve`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from consumers.api.decoders import decodable
from consumers.api.overlay import EDITS
from consumers.api.wado import EXPLICIT_LE, IMPLICIT_LE, NATIVE, Form
from consumers.dicom.implicit import to_implicit
from consumers.dicom.services import DicomRoom
from infra.dicom_exchange import Context
from infra.dicom_scu import CONTEXTS_MAX, Proposed
from infra.ports import Row
from schemas.errors import Defect

NO_CONTEXT = 0x0122
"""Of a sub-operation that was not tried: no accepted context takes the instance."""
PROCESSING_FAILURE = 0x0110
"""Of one whose bytes could not be had."""
PREFIX_END = 132
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"


Buffer = bytes | memoryview


def convertible(stored: str) -> bool:
    """Whether an instance can be written as Explicit VR Little Endian."""
    return stored in NATIVE or decodable(stored)


def context_for(row: Row, contexts: Mapping[tuple[str, str], Context]) -> Context | None:
    """The accepted context in which an instance leaves, out of (SOP class, transfer syntax) → context."""
    stored = row["transfer_syntax"]
    ways = [stored, *((EXPLICIT_LE, IMPLICIT_LE) if convertible(stored) else ())]
    if EDITS in row and stored in NATIVE:
        ways = [EXPLICIT_LE, IMPLICIT_LE]  # corrections are written in Explicit VR
    return next((c for syntax in ways if (c := contexts.get((row["sop_class"], syntax)))), None)


def by_syntax(contexts: Iterable[Context]) -> dict[tuple[str, str], Context]:
    """(SOP class, transfer syntax) → context, of those on which this side may send."""
    return {(c.abstract_syntax, c.transfer_syntax): c for c in contexts if c.as_scu}


def proposals(rows: Iterable[Row], maximum: int = CONTEXTS_MAX) -> list[tuple[list[Proposed], list[Row]]]:
    """Associations to open: the contexts of each, and the instances for it, in their order.

    A context for each SOP class and transfer syntax, since in a context of several the receiver alone would choose.
    """
    found: list[tuple[list[Proposed], list[Row]]] = []
    proposed: dict[tuple[str, str], Proposed] = {}
    members: list[Row] = []
    for row in rows:
        syntaxes = dict.fromkeys([row["transfer_syntax"], EXPLICIT_LE, IMPLICIT_LE])
        new = {(row["sop_class"], s): Proposed(row["sop_class"], (s,)) for s in syntaxes}
        if len(proposed | new) > maximum:
            found.append((list(proposed.values()), members))
            proposed, members = {}, []
        proposed |= new
        members.append(row)
    if members:
        found.append((list(proposed.values()), members))
    return found


def data_set(room: DicomRoom, row: Row, transfer_syntax: str, sent: Callable[[int], None]) -> Iterator[Buffer]:
    """The bytes of an instance's dataset; `sent` is told how many leave.

    Corrections (EDITS of a row) are laid over it by `Retriever`, as for WADO-RS.
    Raises NotAcceptable, NotFound, Transient, Defect, Invalid.
    """
    for piece in _pieces(room, row, transfer_syntax):
        sent(len(piece))
        yield piece


def begun(pieces: Iterator[Buffer]) -> Iterator[Buffer]:
    """The same after its first piece was had: what goes wrong at once fails the instance and not the association."""
    first = next(pieces, b"")
    return chain((first,), pieces)


def _pieces(room: DicomRoom, row: Row, transfer_syntax: str) -> Iterator[Buffer]:
    stored = row["transfer_syntax"]
    if transfer_syntax == stored and EDITS not in row:
        start = row["tar_offset"] + row["dataset_offset"]
        yield from room.loop.iterate(room.packs.stream(row["pack_id"], start, row["length"] - row["dataset_offset"]))
        return
    retriever = room.room.retriever
    wanted = stored if transfer_syntax == stored and stored not in NATIVE else EXPLICIT_LE
    made = retriever.instances([row], Form(False, (wanted,)), "")
    pieces = room.loop.iterate(room.loop.call(retriever.open(made)))
    if transfer_syntax == IMPLICIT_LE:
        yield to_implicit(b"".join(pieces))
    else:
        yield from _without_meta(pieces)


def _without_meta(pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """What follows the File Meta Information of a file that this archive has written (PS3.10 §7.1)."""
    head = b""
    left: int | None = None
    for piece in pieces:
        if left is None:
            head += piece
            if len(head) < PREFIX_END + 12:
                continue
            if head[PREFIX_END : PREFIX_END + 8] != _GROUP_LENGTH:
                raise Defect("a file of this archive's own begins without its group length")
            left = PREFIX_END + 12 + int.from_bytes(head[PREFIX_END + 8 : PREFIX_END + 12], "little")
            piece = head
        if left:
            cut = min(left, len(piece))
            left -= cut
            piece = memoryview(piece)[cut:]
        if len(piece):
            yield piece
