"""SR documents and encapsulated PDFs as reports: what they say, whether somebody verified it; the first copy counts."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from schemas.events import PackStored, ReportIssued
from schemas.pack import decode_manifest
from schemas.report_content import Coded, content_of, signature_of
from streams.effects import Emit
from streams.instance_reports import InstanceReports
from streams.structured_report import BASIC_TEXT, CLASSES, ENCAPSULATED_PDF, structured
from tests.unit.consumers.archive import MemoryArchive
from tests.unit.streams.samples import fact

STUDY = "1.2.77"
PDF = b"%PDF-1.7\nCANARY" + bytes(5000) + b"%%EOF"


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def item(kind: str, name: Dataset, *children: Dataset, relation: str = "CONTAINS", **values: Any) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType, ds.ConceptNameCodeSequence = relation, kind, [name]
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    if children:
        ds.ContentSequence = list(children)
    return ds


def measured(value: str, unit: str) -> Dataset:
    ds = Dataset()
    ds.NumericValue, ds.MeasurementUnitsCodeSequence = value, [code(unit, unit, "UCUM")]
    return ds


FINDINGS, FINDING = code("121070", "Findings"), code("121071", "Finding")
TREE = (
    item("CODE", code("121049", "Language of Content Item"), relation="HAS CONCEPT MOD",
         ConceptCodeSequence=[code("ar", "Arabic", "RFC5646")]),
    item("PNAME", code("121008", "Person Observer Name"), relation="HAS OBS CONTEXT", PersonName="CANARY^Observer"),
    item("CONTAINER", code("121060", "History"), item("TEXT", code("121060", "History"), TextValue="ألم بالبطن")),
    item(
        "CONTAINER", FINDINGS,
        item("TEXT", FINDING, TextValue="كبد طبيعي"),
        item("NUM", code("81827009", "Diameter", "SCT"), MeasuredValueSequence=[measured("12.5", "mm")]),
        item("IMAGE", FINDING),
    ),
    item("CONTAINER", code("121111", "Summary"), item("TEXT", code("121111", "Summary"), TextValue="stable")),
    item(
        "CONTAINER", code("121072", "Impressions"),
        item("TEXT", code("121073", "Impression"), TextValue="لا شيء حاد"),
        item("CODE", code("121073", "Impression"), ConceptCodeSequence=[code("K80.2", "Gallstones", "I10")]),
    ),
)  # fmt: skip


def instance(sop: str, sop_class: str, syntax: str = ExplicitVRLittleEndian, **values: Any) -> bytes:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"{STUDY}.{sop}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, f"{STUDY}.0"
    ds.PatientID, ds.PatientName, ds.Modality = "P-1", "Hassan^Mona", "SR"
    ds.StudyDate, ds.StudyTime, ds.SeriesNumber, ds.InstanceNumber = "20250301", "080000", 1, 1
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta = meta
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian,
               little_endian=syntax != ExplicitVRBigEndian)  # fmt: skip
    return out.getvalue()


def sr(sop: str = "1", **values: Any) -> bytes:
    title = [code("18748-4", "Diagnostic imaging report", "LN")]
    return instance(sop, BASIC_TEXT, ContentSequence=list(TREE), ConceptNameCodeSequence=title, **values)


def pdf(sop: str = "2", syntax: str = ExplicitVRLittleEndian, document: bytes = PDF, **values: Any) -> bytes:
    padded = document + bytes(len(document) % 2)
    more = {"EncapsulatedDocument": padded, "EncapsulatedDocumentLength": len(document), "DocumentTitle": "Report"}
    return instance(sop, ENCAPSULATED_PDF, syntax, MIMETypeOfEncapsulatedDocument="application/pdf", **more, **values)


class World:
    """Packs in memory and what becomes of them."""

    def __init__(self) -> None:
        self.archive = MemoryArchive()
        self.reports = InstanceReports(self.archive.objects, "sijil-documents")

    def take(self, *files: bytes, offset: int = 1) -> list[Emit]:
        pack_id = self.archive.store(list(files), site="CAI-1")
        keys = [k for k in self.archive.objects.list("sijil-packs", "packs/") if pack_id in k]
        (lines,), (tar,) = ([k for k in keys if k.endswith(e)] for e in (".gz", ".zst"))
        data = self.archive.objects.get("sijil-packs", lines)
        head = decode_manifest(data).pack
        event = PackStored(
            pack_id=pack_id, study_uid=STUDY, site="CAI-1", gateway=head.gateway, door="dimse", bucket="sijil-packs",
            pack_key=tar, pack_size=head.size, pack_sha256=head.sha256, manifest_key=lines, manifest_size=len(data),
            manifest_sha256=hashlib.sha256(data).hexdigest(), instances=head.instances, opened=head.opened,
            sealed=head.sealed,
        )  # fmt: skip
        first = asyncio.run(self.reports.of_pack(fact(event, offset), event))
        again = asyncio.run(self.reports.of_pack(fact(event, offset), event))
        assert [(e.id, e.event) for e in again] == [(e.id, e.event) for e in first], "a crash repeats the batch"
        return first

    def document(self, emit: Emit) -> dict[str, Any]:
        assert isinstance(emit.event, ReportIssued)
        data = self.archive.objects.get("sijil-documents", emit.event.document_key)
        assert hashlib.sha256(data).hexdigest() == emit.event.document_sha256
        found: dict[str, Any] = json.loads(data)
        return found


def test_a_structured_report_section_by_section() -> None:
    world = World()
    (emit,) = world.take(sr(CompletionFlag="COMPLETE", VerificationFlag="UNVERIFIED"))
    document = world.document(emit)
    found = content_of(document)
    assert isinstance(emit.event, ReportIssued)
    assert (emit.event.status, emit.event.signed_by, emit.event.site) == ("preliminary", "", "CAI-1")
    assert (emit.event.source_sop_uid, emit.event.study_uids) == (f"{STUDY}.1", [STUDY])
    assert found.question == "ألم بالبطن"
    assert found.findings == "كبد طبيعي\nDiameter: 12.5 mm\nSummary\nstable"
    assert found.impression == "لا شيء حاد\nGallstones"
    assert found.conclusions == (Coded(text="Gallstones", system="http://hl7.org/fhir/sid/icd-10", code="K80.2"),)
    assert (found.language, found.procedure.code) == ("ar", "18748-4")
    assert b"CANARY" not in json.dumps(document).encode(), "who observed is said where it is verified"


def test_what_somebody_verified_is_final() -> None:
    world = World()
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerificationDateTime = "Fahmy^Sara", "20250301090000"
    observer.VerifyingOrganization = "X"
    verified = sr(CompletionFlag="COMPLETE", VerificationFlag="VERIFIED", VerifyingObserverSequence=[observer])
    (emit,) = world.take(verified)
    document = world.document(emit)
    signature = signature_of(document)
    assert signature is not None
    assert isinstance(emit.event, ReportIssued)
    assert (emit.event.status, emit.event.signed_by, signature.who) == ("final", "site:CAI-1", "site:CAI-1")
    assert document["resultsInterpreter"] == [{"display": "Fahmy Sara"}]
    (partial,) = world.take(sr("8", CompletionFlag="PARTIAL", VerificationFlag="UNVERIFIED"), offset=2)
    assert isinstance(partial.event, ReportIssued)
    assert partial.event.status == "partial"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("document", [PDF, PDF[:100] + b"%%EOF", PDF + b"x"])
def test_an_encapsulated_pdf_byte_by_byte(syntax: str, document: bytes) -> None:
    world = World()
    (emit,) = world.take(pdf(syntax=syntax, document=document, VerificationFlag="VERIFIED"))
    (form,) = content_of(world.document(emit)).presented
    assert (form.content_type, form.title, form.data) == ("application/pdf", "Report", document)


def test_the_first_copy_counts_and_a_sick_one_harms_nobody() -> None:
    world = World()
    (first,) = world.take(sr(CompletionFlag="COMPLETE", VerificationFlag="UNVERIFIED"))
    assert world.take(sr(CompletionFlag="COMPLETE", VerificationFlag="VERIFIED"), offset=5) == []
    assert world.document(first)["status"] == "preliminary"
    emits = world.take(pdf("3", document=b"not a pdf"), sr("4"), pdf("5"), offset=6)
    assert [e.event.source_sop_uid for e in emits if isinstance(e.event, ReportIssued)] == [f"{STUDY}.4", f"{STUDY}.5"]


def test_ct_slices_are_no_reports() -> None:
    assert "1.2.840.10008.5.1.4.1.1.2" not in CLASSES
    assert World().take(instance("9", "1.2.840.10008.5.1.4.1.1.2")) == []


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0040A730", "0040A043", "0040A160", "0040A040", "Value", "vr"]), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["0040A730", "0040A043", "0040A491", "0040A493", "0040A073"]), json_like))
def test_any_header_is_read_without_a_fault(header: dict[str, Any]) -> None:
    assert structured(header, STUDY).study_uids == (STUDY,)


def test_a_tree_without_end_has_one() -> None:
    leaf: dict[str, Any] = {"0040A040": {"vr": "CS", "Value": ["TEXT"]}, "0040A160": {"vr": "UT", "Value": ["deep"]}}
    for _ in range(200):
        leaf = {"0040A040": {"vr": "CS", "Value": ["CONTAINER"]}, "0040A730": {"vr": "SQ", "Value": [leaf]}}
    assert structured({"0040A730": {"vr": "SQ", "Value": [leaf]}}, STUDY).findings == ""
