"""Instances that are reports become reports: a document beside the others, and `report.issued`. Shell over Objects.

The steps of one:
1. its text, or its PDF, is read from the pack
2. the document is in S3 under its version's key; what is there already stays (the first copy counts)
3. the event is published; its id is that of the version, so that deciding again gives the same event
The report's id is derived from the SOP Instance UID. What nobody has verified waits for a signature like any other.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pydicom.filereader import read_dataset

from infra import faults, packed, telemetry
from infra.ports import Objects
from schemas.blocks import Blocks
from schemas.errors import Defect, Invalid, NotFound
from schemas.events import PackStored, ReportIssued
from schemas.identity import derived_id
from schemas.pack import InstanceLine, Manifest, PackLine, decode_manifest
from schemas.report_content import Content, Signature, document_of, encode_document, kept_document
from streams.effects import Emit
from streams.facts import Fact
from streams.structured_report import CLASSES, ENCAPSULATED_PDF, encapsulated, structured, verifier_of

log = telemetry.logger(__name__)

PDF_BYTES_MAX: Final = 32 << 20
DOCUMENT: Final = 0x00420011
LENGTH: Final = 0x00420015
FHIR_JSON: Final = "application/fhir+json"
IMPLICIT_LE, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"

FOUND = telemetry.Counter("sijil_instance_reports", "Instances that are reports, by what became of them", ["result"])

_header = msgspec.json.Decoder(dict[str, Any])


class InstanceReports:
    """Makes reports of instances. `documents`: the bucket that reports lie in."""

    def __init__(self, objects: Objects, documents: str) -> None:
        self._objects, self._documents = objects, documents

    async def of_pack(self, fact: Fact, event: PackStored) -> list[Emit]:
        """Steps 1 and 2 of each report of a pack; the events of step 3. Raises Transient."""
        return await asyncio.to_thread(self._of_pack, fact, event)

    def _of_pack(self, fact: Fact, event: PackStored) -> list[Emit]:
        try:
            manifest = decode_manifest(self._objects.get(event.bucket, event.manifest_key))
        except (Invalid, NotFound):
            return []  # the worker buries it
        emits = []
        for line in manifest.instances:
            if line.sop_class in CLASSES:
                emit = self._one(fact, event, manifest, line)
                FOUND.labels("issued" if emit else "unreadable").inc()
                emits += [emit] if emit else []
        return emits

    def _one(self, fact: Fact, event: PackStored, manifest: Manifest, line: InstanceLine) -> Emit | None:
        # Step 1: what it says
        try:
            header = _header.decode(line.header)
            content = self._content(event, manifest.pack, line, header)
        except (msgspec.DecodeError, Invalid, NotFound) as error:
            reason = getattr(error, "reason", type(error).__name__)
            log.warning("instance is no report that can be read", sop_uid=line.sop_uid, reason=reason)
            return None
        # Step 2: the document
        report_id = derived_id("report", "dicom", line.sop_uid)
        who = f"site:{manifest.pack.site}"
        signature = Signature(who=who, when=fact.log_time) if content.status == "final" else None
        document = document_of(content)
        if name := verifier_of(header):
            document["resultsInterpreter"] = [{"display": name}]
        data = encode_document(
            kept_document(
                document, report_id=report_id, version=1, recorded=fact.log_time, author=who, signature=signature
            )
        )
        key = f"reports/{report_id}/1.json"
        digest = hashlib.sha256(data).hexdigest()
        try:
            self._objects.put(self._documents, key, data, sha256=digest, content_type=FHIR_JSON)
        except Defect:
            return None  # a later copy of it: the first one counts, and its event was published
        faults.point("instance-reports.after-document")
        # Step 3: the event
        issued = ReportIssued(
            report_id=report_id,
            version=1,
            status=content.status,
            study_uids=[line.study_uid],
            site=manifest.pack.site,
            issued=fact.log_time,
            bucket=self._documents,
            document_key=key,
            document_size=len(data),
            document_sha256=digest,
            author=who,
            signed_by=signature.who if signature else "",
            signed=signature.when if signature else None,
            source_sop_uid=line.sop_uid,
        )
        return Emit(issued, derived_id(ReportIssued.TYPE, report_id, 1), report_id)

    def _content(self, event: PackStored, pack: PackLine, line: InstanceLine, header: Mapping[str, Any]) -> Content:
        if line.sop_class == ENCAPSULATED_PDF:
            return encapsulated(header, line.study_uid, self._pdf(event, pack, line, header))
        return structured(header, line.study_uid)

    def _pdf(self, event: PackStored, pack: PackLine, line: InstanceLine, header: Mapping[str, Any]) -> bytes:
        """The document of an instance. Raises Invalid, NotFound."""
        if line.length > PDF_BYTES_MAX:
            raise Invalid("pdf-too-large")
        inline = header.get(f"{DOCUMENT:08X}", {}).get("InlineBinary")
        if isinstance(inline, str):
            try:
                data = base64.b64decode(inline, validate=True)
            except binascii.Error as e:
                raise Invalid("pdf-damaged") from e
        else:
            start, length = line.offset + line.dataset_offset, line.length - line.dataset_offset
            blocks = Blocks(pack.blocks) if pack.blocks else None
            dataset = packed.read(self._objects, event.bucket, event.pack_key, blocks, start, length)
            data = _document(dataset, line.transfer_syntax)
        said = header.get(f"{LENGTH:08X}", {}).get("Value", [len(data)])[0]
        data = data[:said] if isinstance(said, int) and 0 < said <= len(data) else data
        if not data.startswith(b"%PDF"):
            raise Invalid("pdf-damaged")
        return data


def _document(dataset: bytes, transfer_syntax: str) -> bytes:
    if transfer_syntax == DEFLATED:
        raise Invalid("pdf-deflated")
    implicit, little = transfer_syntax == IMPLICIT_LE, transfer_syntax != BIG_ENDIAN
    try:
        found = read_dataset(io.BytesIO(dataset), implicit, little, specific_tags=[DOCUMENT])
        value = found[DOCUMENT].value
    except Exception as error:
        raise Invalid("pdf-damaged") from error
    return value if isinstance(value, bytes) else b""
