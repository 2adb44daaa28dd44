"""An archive in memory, filled by the real projections, with the query API on it."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import data_store
import httpx
import msgspec
import pydicom
from fastapi import FastAPI

from consumers.api import app as query_api
from consumers.api.decoders import Decoders
from consumers.api.views import Views
from infra.chain import ChainedLog
from infra.http_caller import Authenticator
from infra.http_door import HttpDoor, Register, compose
from infra.memory import MemoryLog, MemoryObjects, MemoryTables
from infra.ports import Position, Select
from infra.settings import Settings
from producers.dicom.header import header_json
from producers.dicom.part10 import parse_file_meta
from schemas.errors import Overloaded
from schemas.events import (
    Event,
    Named,
    OrderCancelled,
    OrderChanged,
    OrderPlaced,
    PackArchived,
    PackStored,
    PatientSeen,
    ReportIssued,
    StudyExpected,
)
from schemas.pack import (
    ZSTD,
    InstanceLine,
    Manifest,
    PackLine,
    decode_manifest,
    encode_manifest,
    manifest_key,
    pack_key,
)
from schemas.patient_keys import Keys, PatientSecret, PatientSecrets
from schemas.tables import Write
from schemas.topics import topic_of
from streams import counting, dispatch
from streams.counting import Counted, counted, tallied
from streams.facts import Fact
from streams.material import Material
from streams.pack_rows import PackRow
from streams.projections import archive as packs
from streams.projections import patients, reports
from streams.projections.studies import day_of_study, project, summarise
from streams.times import Times
from streams.to_read import ToRead
from tests.callers import Anyone
from tests.packs import compressed

SECRET = bytes(range(32))
SECRETS = PatientSecrets(PatientSecret(1, SECRET))
KEYS = Keys(SECRETS, {})
T0 = 1_740_816_000_000
"""2025-03-01T08:00:00Z."""
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
MORE_FILES = Path(data_store.__file__).parent / "data"
DECODERS = Decoders()
"""One pool for all doors of a session: its processes take seconds to begin."""
atexit.register(DECODERS.close)


def sample(name: str) -> bytes:
    """One of the files that pydicom and pydicom-data ship."""
    path = FILES / name
    return (path if path.exists() else MORE_FILES / name).read_bytes()


@dataclass
class Published:
    """An event that the chain was given."""

    event: Event
    id: str
    kept: Future[None] = field(default_factory=Future)
    acknowledged: Future[Position] = field(default_factory=Future)


class Journal:
    """A chain that keeps and acknowledges at once, unless told otherwise."""

    source = "/api/LOCAL/1"

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.keeps = self.acknowledges = True
        self.full = False

    @property
    def backlog(self) -> int:
        """Nothing waits."""
        return 0

    def publish(self, event: Event, *, id: str = "", subject: str = "", traceparent: str = "") -> Published:
        """As `infra.chain.ChainedLog`."""
        if self.full:
            raise Overloaded("the chain is full")
        found = Published(event, id)
        self.published.append(found)
        if self.keeps:
            found.kept.set_result(None)
        if self.acknowledges:
            found.acknowledged.set_result(Position("sijil.accesses", 0, len(self.published)))
        return found

    def events(self, kind: type[Event]) -> list[Any]:
        """Those of a type."""
        return [p.event for p in self.published if isinstance(p.event, kind)]


class MemoryArchive:
    """Read models, packs and a journal."""

    def __init__(self, encoding: str = ZSTD) -> None:
        """`encoding`: of its packs."""
        self._encoding = encoding
        self.tars: dict[str, bytes] = {}
        self.tables, self.objects, self.log = MemoryTables(), MemoryObjects(), MemoryLog()
        self.journal = Journal()
        self.settings = Settings(search_secret=bytes(range(16, 48)).hex(), query_deadline_s=30.0)
        self._rows: dict[str, list[PackRow]] = {}
        self._offset = self._ordered = 0

    def store(self, files: Sequence[bytes], *, site: str = "LOCAL") -> str:
        """One pack of the files, all of one study; its id."""
        pack_id = str(UUID(int=(T0 + self._offset) << 80 | 7 << 76 | 2 << 62 | self._offset))
        tar, lines = _packed(files)
        self.tars[pack_id] = tar
        stored, blocks = tar, None
        if self._encoding == ZSTD:
            stored, blocks = compressed(tar, [line.offset + -(-line.length // 512) * 512 for line in lines])
        sha256 = hashlib.sha256(stored).hexdigest()
        study = lines[0].study_uid
        moment = datetime.fromtimestamp(T0 / 1000 + self._offset, UTC)
        said = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = PackLine(
            pack_id=pack_id,
            study_uid=study,
            site=site,
            issuer=site,
            gateway="/gateway/LOCAL/1",
            size=len(stored),
            sha256=sha256,
            encoding=self._encoding,
            blocks=blocks.pairs if blocks else (),
            instances=len(lines),
            opened=said,
            sealed=said,
        )
        manifest = encode_manifest(head, lines)
        event = PackStored(
            pack_id=pack_id,
            study_uid=study,
            site=site,
            gateway=head.gateway,
            door="stow",
            bucket="sijil-packs",
            pack_key=self.pack_key(pack_id),
            pack_size=len(stored),
            pack_sha256=sha256,
            manifest_key=manifest_key(pack_id),
            manifest_size=len(manifest),
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
            instances=len(lines),
            opened=said,
            sealed=said,
        )
        self.objects.put("sijil-packs", event.pack_key, stored, sha256=sha256)
        self.objects.put("sijil-packs", event.manifest_key, manifest, sha256=event.manifest_sha256)
        fact = self._fact("sijil.study.arrivals", event)
        found = project(fact, Manifest(head, tuple(lines)), KEYS)
        rows = self._rows.setdefault(study, [])
        rows.append(found.row)
        person = found.row.summary.study
        seen = PatientSeen(
            patient_key=found.patient.value,
            basis=found.patient.basis,
            study_uid=study,
            site=site,
            pack_id=pack_id,
            bucket="sijil-packs",
            manifest_key=event.manifest_key,
        )
        writes = [*found.writes, *summarise(0, rows, fact.offset)]
        writes += patients.seen(self._fact("sijil.patients", seen), seen, person)
        asyncio.run(self._apply(writes, found.row if len(rows) == 1 else None))
        return pack_id

    def pack_key(self, pack_id: str) -> str:
        """Where a pack lies."""
        return pack_key(pack_id, self._encoding)

    async def _apply(self, writes: list[Write], new: PackRow | None) -> None:
        """The writes, and with a new study the counts of its day."""
        if new is not None:
            tallies = tallied([Counted(0, new.offset, day_of_study(new))])
            selects = [Select(counting.TABLE, dict(key), counting.COLUMNS) for key in tallies]
            writes = writes + counted(tallies, await self.tables.select_many(selects))
        await self.wrote(writes)

    async def wrote(self, writes: Sequence[Write]) -> None:
        """The writes, and what the worker makes of them."""
        await self.tables.apply(writes)
        await ToRead(self.tables).look(writes)
        await Times(self.tables).look(writes)

    def report(
        self, document: bytes, study_uids: list[str], *, report_id: str, version: int = 1, people: Sequence[Named] = ()
    ) -> None:
        """A version of a report."""
        key = f"reports/{report_id}/{version}.json"
        digest = hashlib.sha256(document).hexdigest()
        self.objects.put("sijil-documents", key, document, sha256=digest)
        event = ReportIssued(
            report_id=report_id,
            version=version,
            status="final",
            study_uids=study_uids,
            site="LOCAL",
            issued=f"2025-03-0{version}T10:00:00Z",
            bucket="sijil-documents",
            document_key=key,
            document_size=len(document),
            document_sha256=digest,
            people=list(people),
        )
        asyncio.run(self.wrote(reports.issued(self._fact("sijil.reports", event), event)))

    def archived(self, pack_id: str, study_uid: str) -> None:
        """Copies of a pack and its manifest in the archive bucket, and the event that tells of them."""
        found: list[tuple[str, str, str]] = []
        for key in (self.pack_key(pack_id), manifest_key(pack_id)):
            digest = hashlib.sha256(self.objects.get("sijil-packs", key)).hexdigest()
            info = self.objects.copy_locked(
                ("sijil-packs", key), ("sijil-archive", key), sha256=digest, retain_until="2035-01-01T00:00:00Z"
            )
            found.append((key, info.version_id, digest))
        (tar_key, tar_version, tar_sha256), (lines_key, lines_version, lines_sha256) = found
        event = PackArchived(
            pack_id=pack_id,
            study_uid=study_uid,
            bucket="sijil-archive",
            pack_key=tar_key,
            version_id=tar_version,
            size=0,
            sha256=tar_sha256,
            manifest_key=lines_key,
            manifest_version_id=lines_version,
            manifest_sha256=lines_sha256,
            retain_until="2035-01-01T00:00:00Z",
            policy="default",
        )
        asyncio.run(self.tables.apply(packs.archived(self._fact("sijil.archive", event), event)))

    def told(self, event: Event) -> None:
        """An event of a kind that is projected by itself."""

        async def run() -> None:
            material = Material(self.objects, documents="sijil-documents", missing_s=0)
            (wanted,) = await material.wanted([event])
            material.close()
            await self.wrote(dispatch.project(self._fact(topic_of(event), event), wanted))

        asyncio.run(run())

    def ordered(self) -> None:
        """What the order doors have published up to now is projected."""
        kinds = (OrderPlaced, OrderChanged, OrderCancelled, StudyExpected)

        async def run() -> None:
            material = Material(self.objects, documents="sijil-documents", missing_s=0)
            for event in [p.event for p in self.journal.published[self._ordered :] if isinstance(p.event, kinds)]:
                (wanted,) = await material.wanted([event])
                await self.wrote(dispatch.project(self._fact(topic_of(event), event), wanted, KEYS))
            material.close()

        asyncio.run(run())
        self._ordered = len(self.journal.published)

    def _fact(self, topic: str, event: Event) -> Fact:
        self._offset += 1
        return Fact(topic, 0, self._offset, T0 + 1000 * self._offset, f"event-{self._offset}", event)

    def manifests(self) -> list[Manifest]:
        """Those of all packs, in their order."""
        keys = sorted(k for k in self.objects.list("sijil-packs", "packs/") if k.endswith(".gz"))
        return [decode_manifest(self.objects.get("sijil-packs", k)) for k in keys]

    # -------------------------------------------------------------------------------------------- the door

    def app(self, *more: Register, authenticator: Authenticator | None = None) -> tuple[FastAPI, HttpDoor]:
        """The HTTP door with the query API, and what else is given."""
        door = HttpDoor(self.settings, log=self.log, chain=cast(ChainedLog, self.journal), objects=self.objects)
        door.gate.authenticators.append(authenticator or Anyone())
        views = Views(lambda: self.tables)
        return compose(door, [lambda app, door: query_api.add(app, door, views, DECODERS), *more]), door

    @asynccontextmanager
    async def client(
        self, *more: Register, authenticator: Authenticator | None = None
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the started door."""
        app, door = self.app(*more, authenticator=authenticator)
        async with door.lifespan(app):
            transport = httpx.ASGITransport(app, client=("192.0.2.7", 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://sijil.test") as client:
                for _ in range(200):
                    if door.checks["cassandra"]() is True:
                        break
                    await asyncio.sleep(0.01)
                yield client

    def get(self, path: str, **headers: str) -> httpx.Response:
        """One GET on a door of its own."""

        async def ask() -> httpx.Response:
            async with self.client() as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


def _packed(files: Sequence[bytes]) -> tuple[bytes, list[InstanceLine]]:
    buffer = io.BytesIO()
    lines: list[InstanceLine] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for n, data in enumerate(files):
            member = tarfile.TarInfo(f"{n}.dcm")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            lines.append(_line(data, buffer.tell() - -(-len(data) // 512) * 512))
    return buffer.getvalue(), lines


def _line(data: bytes, offset: int) -> InstanceLine:
    meta = parse_file_meta(data)
    dataset = memoryview(data)[meta.dataset_offset :]
    header = header_json(dataset, meta.transfer_syntax)
    told = msgspec.json.decode(header.json)

    def uid(tag: str) -> str:
        return str(told[tag]["Value"][0])

    return InstanceLine(
        sop_uid=uid("00080018"),
        series_uid=uid("0020000E"),
        study_uid=uid("0020000D"),
        sop_class=uid("00080016"),
        transfer_syntax=meta.transfer_syntax,
        offset=offset,
        length=len(data),
        dataset_offset=meta.dataset_offset,
        sha256=hashlib.sha256(dataset).hexdigest(),
        frames=msgspec.Raw(header.frames.json()),
        header=msgspec.Raw(header.json),
    )


def part10(
    sop: str,
    *,
    study: str = "1.2.3",
    series: str = "1.2.3.1",
    syntax: str = "1.2.840.10008.1.2.1",
    rows: int = 4,
    columns: int = 4,
    frames: int = 1,
    pixels: bytes = b"",
    **values: Any,
) -> bytes:
    """A DICOM file of a CT; `values` are attributes by keyword."""
    ds = pydicom.Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = sop, study, series
    ds.Modality = "CT"
    ds.StudyDate, ds.StudyTime = "20250228", "101500"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Hassan^Mona=منى حسن", "P-77", "19800101", "F"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "A-1", "S1", "Doctor^A"
    ds.StudyDescription, ds.SeriesDescription = "CT chest", "axial"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = rows, columns, 16, 12, 11
    if frames > 1:
        ds.NumberOfFrames = frames
    pixels = pixels or bytes(n % 251 for n in range(rows * columns * 2 * frames))
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, pydicom.uid.UID(sop)
    implicit = syntax == "1.2.840.10008.1.2"
    ds.add_new("PixelData", "OW", pixels)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    return out.getvalue()
