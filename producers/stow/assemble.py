"""Instances whose metadata and bulk data come apart (PS3.18 §10.5.1): DICOM files made of the parts of a request.

The metadata are a list of datasets in the DICOM JSON Model, or a part of XML for each (PS3.19 §A.1); each BulkDataURI
in them is the Content-Location of a part, or of several, which are the frames of compressed pixel data in their order.
What comes out is a DICOM file in Explicit VR Little Endian or in the transfer syntax of its pixel data, kept like one
that came as a file. Parts lie in memory while they are few and in files when they are more; nothing of a long part is
read at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urljoin

import msgspec

from producers.body import Body, Filed, Held
from producers.dicom.encode import Json, Referred, encode, head, pad_of, text_of
from producers.dicom.part10 import encode_file_meta
from producers.dicom.syntaxes import EXPLICIT_LE, encoding_of
from producers.identify import Named
from producers.shelf import MB
from producers.spool import SpoolFull
from producers.stow import bulk, native_xml
from producers.stow.multipart import media_type
from producers.stow.negotiate import DICOM_JSON, DICOM_XML
from producers.stow.receive import Receiver, Taken, TooManyParts
from schemas.errors import Invalid
from schemas.identity import check_uid

METADATA_BYTES_MAX = 64 * MB
"""Of one request: several thousand headers."""
_SYNTAX_TAGS = ("00020010", "00083002")
"""Where metadata name the transfer syntax of their pixel data: File Meta, or Available Transfer Syntax UID."""

_METADATA_TYPES = {
    DICOM_JSON: (DICOM_JSON, "application/json"),
    DICOM_XML: (DICOM_XML, "application/xml", "text/xml"),
}

_list = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True)
class BulkPart:
    """A part of bulk data."""

    media_type: str
    transfer_syntax: str
    """As its parameter says; "" without one."""
    taken: Taken


class Assembler:
    """The parts of one request. Raises Invalid(`metadata-…`) for a request whose metadata cannot be read."""

    def __init__(self, receiver: Receiver, address: str, of: str = DICOM_JSON) -> None:
        """`address`: of the request, which relative locations count from; `of`: media type of the metadata."""
        self.receiver, self._address, self._of = receiver, address, of
        self._metadata: list[Taken] = []
        self._bulk: dict[str, list[BulkPart]] = {}
        self._headers: Mapping[str, str] = {}
        self._metadata_bytes = 0

    def begin(self, headers: Mapping[str, str]) -> None:
        """A part begins."""
        self.receiver.begin()
        self._headers = headers

    async def end(self) -> None:
        """The part is complete. One without a type is metadata if it is the first, else octets."""
        default = bulk.OCTETS if self._metadata else self._of
        kind, parameters = media_type(self._headers.get("content-type") or default)
        taken = await self.receiver.take()
        if kind in _METADATA_TYPES[self._of] and "content-location" not in self._headers:
            self._metadata.append(taken)
            self._metadata_bytes += taken.body.length
            if self._metadata_bytes > METADATA_BYTES_MAX:
                raise TooManyParts("metadata-too-long")
            return
        location = self._at(self._headers.get("content-location", ""))
        part = BulkPart(kind, parameters.get("transfer-syntax", ""), taken)
        self._bulk.setdefault(location, []).append(part)

    async def finish(self) -> None:
        """All parts are there: make the files, one at a time."""
        if not self._metadata:
            raise Invalid("metadata-missing", "the request has no metadata")
        for taken in self._metadata:
            if self._of == DICOM_XML:
                await self._one(bytes(taken.body.view()) if taken.body.length else b"")
                continue
            for raw in _datasets(taken.body):
                await self._one(bytes(raw))

    def discard(self) -> None:
        """Let go of all parts."""
        for taken in (*self._metadata, *(p.taken for parts in self._bulk.values() for p in parts)):
            self.receiver.give_back(taken)
        self._metadata, self._bulk = [], {}

    async def _one(self, raw: bytes) -> None:
        named = Named()
        try:
            dataset = native_xml.dataset(raw) if self._of == DICOM_XML else _decoded(raw)
            named = _named(dataset)
            pieces = list(self._file(dataset))
        except Invalid as refused:
            await self.receiver.submit(Held((raw,)), refuse=refused.reason, named=named)
            return
        length = sum(len(p) if isinstance(p, bytes) else p.length for p in pieces)
        made = await self.receiver.on_thread(partial(self._made, pieces, length))
        await self.receiver.submit(made)

    def _made(self, pieces: Sequence[bytes | Body], length: int) -> Body:
        """The file, in memory or on disk; on a thread."""
        if length <= self.receiver.part_max:
            return Held((b"".join(_chunks(pieces)),))
        writer = self.receiver.writer()
        try:
            for chunk in _chunks(pieces):
                writer.write(chunk)
        except OSError as error:
            writer.discard()
            raise SpoolFull("the spool's disk refused a write") from error
        return writer.finish()

    def _file(self, dataset: Json) -> Iterator[bytes | Body]:
        """Raises Invalid(`metadata-…`, `bulk-data-…`)."""
        encoded = encode(dataset)
        pixels = next((p for p in encoded if isinstance(p, Referred) and _is_pixel_data(p)), None)
        syntax = EXPLICIT_LE if pixels is None else self._syntax(dataset, pixels)
        yield encode_file_meta(
            sop_class_uid=text_of(dataset, "00080016"),
            sop_instance_uid=text_of(dataset, "00080018"),
            transfer_syntax=syntax,
        )
        for piece in encoded:
            if isinstance(piece, bytes):
                yield piece
            elif piece is pixels and syntax != EXPLICIT_LE:
                yield from _encapsulated(self._parts(piece))
            else:
                yield from _native(piece, self._parts(piece))

    def _syntax(self, dataset: Json, pixels: Referred) -> str:
        first = self._parts(pixels)[0]
        told = next((t for n in _SYNTAX_TAGS if (t := text_of(dataset, n))), "")
        # Metadata that were asked for as uncompressed name a syntax that an image part cannot be in.
        said = first.transfer_syntax or (told if encoding_of(told).encapsulated else "")
        body = first.taken.body
        return bulk.transfer_syntax(first.media_type, said, body.head(min(bulk.HEAD_BYTES, body.length)))

    def _parts(self, piece: Referred) -> list[BulkPart]:
        found = self._bulk.get(self._at(piece.uri))
        if not found:
            raise Invalid("bulk-data-missing", "no part has the location of a BulkDataURI")
        return found

    def _at(self, location: str) -> str:
        try:
            return urljoin(self._address, location.strip())
        except ValueError as e:
            raise Invalid("metadata-json", "a location is no address") from e


def _native(piece: Referred, parts: Sequence[BulkPart]) -> Iterator[bytes | Body]:
    length = sum(p.taken.body.length for p in parts)
    vr = "OB" if piece.vr == "UN" and piece.tag == bulk.PIXEL_DATA else piece.vr
    yield head(piece.tag, vr, length + (length & 1))
    for part in parts:
        yield part.taken.body
    if length & 1:
        yield pad_of(vr)


def _encapsulated(parts: Sequence[BulkPart]) -> Iterator[bytes | Body]:
    yield bulk.ENCAPSULATED_HEAD
    for part in parts:
        yield bulk.fragment_head(part.taken.body.length)
        yield part.taken.body
        yield b"\0" * (part.taken.body.length & 1)
    yield bulk.SEQUENCE_END


def _chunks(pieces: Sequence[bytes | Body]) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        if isinstance(piece, Held | Filed):
            yield from piece.chunks()
        else:
            yield piece


def _is_pixel_data(piece: Referred) -> bool:
    return piece.tag == bulk.PIXEL_DATA and piece.depth == 0


def _datasets(body: Body) -> list[msgspec.Raw]:
    """Metadata are a list; one dataset alone is taken for a list of it."""
    view = body.view() if body.length else memoryview(b"")
    try:
        if bytes(view[:64]).lstrip(b" \t\r\n\xef\xbb\xbf")[:1] == b"{":
            return [msgspec.Raw(bytes(view))]
        return _list.decode(view)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("metadata-json", "the metadata are not in the DICOM JSON Model") from e


def _decoded(raw: bytes) -> Json:
    try:
        return _object.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("metadata-json", "the metadata are not in the DICOM JSON Model") from e


def _named(dataset: Json) -> Named:
    return Named(*(_usable(text_of(dataset, tag)) for tag in ("0020000D", "00080018", "00080016")))


def _usable(uid: str) -> str:
    with suppress(Invalid):
        check_uid(uid)
        return uid
    return ""
