"""Corrections as the worker sees them: any batches, any repeats and a rebuild give the same rows."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.memory import MemoryTables
from infra.ports import Select
from producers.correction_request import correction, event, parse
from schemas.corrections import Document, encode
from schemas.events import Event, PackStored, StudyRejected
from schemas.overlay import decode
from schemas.pack import decode_manifest
from streams import rejection_notes
from streams.apply import Applied, Projector
from streams.arrivals import decide
from streams.facts import Fact
from streams.material import Material
from tests.unit.consumers.archive import SECRETS, T0, MemoryArchive, part10

STUDY = "1.2.3"
DECISIONS: list[dict[str, Any]] = [
    {"type": "correct", "attributes": {"StudyDescription": "neck", "StudyDate": "20240110"}},
    {"type": "correct", "attributes": {"PatientName": "Salem^Ali", "PatientID": "N-1"}},
    {"type": "correct", "series_uid": "1.2.3.1", "attributes": {"Laterality": "L"}},
    {"type": "reassign", "patient": {"PatientID": "N-5", "PatientName": "Adel^Mona"}},
    {"type": "reject", "code": "113001", "sop_uids": ["1.1"]},
    {"type": "reject", "code": "113038"},
    {"type": "resolve", "sop_uid": "1.1", "serve": "a" * 64, "second_offset": 3},
    {"type": "restore"},
]


class Worker:
    """The projection of one archive's packs and of corrections in any batches."""

    def __init__(self, archive: MemoryArchive, events: Sequence[Event]) -> None:
        self.tables = MemoryTables()
        self._projector = Projector(
            self.tables, Material(archive.objects, documents="sijil-documents", missing_s=0.1), SECRETS
        )
        self.applied: list[Applied] = [self.apply(events, "sijil.study.arrivals", 1)]

    def apply(self, events: Sequence[Event], topic: str, first: int) -> Applied:
        facts = [Fact(topic, 0, n, T0 + n, f"e{n}", e) for n, e in enumerate(events, first)]
        return asyncio.run(self._projector.apply(facts))

    def corrections(self, events: Sequence[Event], cuts: Sequence[int] = ()) -> list[str]:
        """Reasons of those that failed."""
        topic, start, failed = "sijil.study.corrections", 0, []
        for cut in [*sorted(cuts), len(events)]:
            if start < cut:
                failed += [e.reason for _, e in self.apply(events[start:cut], topic, 100 + start).failed]
                start = cut
        return failed

    def dump(self) -> dict[str, list[Any]]:
        async def scan(name: str) -> list[Any]:
            return sorted([str(sorted(r.items())) async for r in self.tables.scan(name, writetime=True)])

        names = (
            "studies", "corrections", "corrections_by_month", "studies_by_patient", "studies_by_patient_id",
            "studies_by_day", "study_counts", "studies_by_name_token", "name_tokens", "studies_by_accession",
        )  # fmt: skip
        return {name: asyncio.run(scan(name)) for name in names}

    def overlay(self) -> Any:
        (row,) = asyncio.run(self.tables.select(Select("studies", {"study_uid": STUDY})))
        return decode(row["overlay"])


class Archive(MemoryArchive):
    """Its packs' events, and documents of corrections."""

    def __init__(self, *packs: Sequence[bytes]) -> None:
        super().__init__()
        self.arrivals: list[Event] = []
        for files in packs:
            self.store(files)

    def _fact(self, topic: str, event: Event) -> Fact:
        if isinstance(event, PackStored):
            self.arrivals.append(event)
        return super()._fact(topic, event)

    def decided(self, n: int, asked: dict[str, Any], study: str = STUDY) -> Event:
        found = parse(json.dumps({"id": str(UUID(int=n)), **asked}).encode())
        document = Document(
            id=found.id,
            study_uid=study,
            number=n,
            actor="http:x",
            recorded="2025-03-01T09:00:00Z",
            reason=found.reason,
            correction=correction(found),
        )
        data, key = encode(document), f"corrections/{study}/{n:06}.json"
        digest = hashlib.sha256(data).hexdigest()
        self.objects.put("sijil-documents", key, data, sha256=digest)
        return event(document, "sijil-documents", key, len(data), digest)


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive([part10("1.1"), part10("1.2")], [part10("1.3", series="1.2.3.2")])


@settings(max_examples=40, deadline=None)
@given(
    order=st.lists(st.integers(0, len(DECISIONS) - 1), min_size=1, max_size=7),
    cuts=st.lists(st.integers(0, 8), max_size=3),
    repeat=st.integers(0, 6),
)
def test_batches_and_repeats_change_nothing(order: list[int], cuts: list[int], repeat: int) -> None:
    it = Archive([part10("1.1"), part10("1.2")])
    events = [it.decided(n, DECISIONS[k]) for n, k in enumerate(order, 1)]
    events.append(events[repeat % len(events)])  # a record that comes twice
    one, other = Worker(it, it.arrivals), Worker(it, it.arrivals)
    assert one.corrections(events) == []
    assert other.corrections(events, [c for c in cuts if c < len(events)]) == []
    # The whole batch once more, as after a crash
    other.apply(events[-1:], "sijil.study.corrections", 100 + len(events) - 1)
    assert one.dump() == other.dump()


def test_the_last_one_decides(archive: Archive) -> None:
    worker = Worker(archive, archive.arrivals)
    assert worker.corrections([archive.decided(n, d) for n, d in enumerate(DECISIONS[:7], 1)]) == []
    found = worker.overlay()
    assert found.study["00100010"] == "Adel^Mona"
    assert found.study["00081030"] == "neck"
    assert found.study["00100030"] == ""
    assert found.whole.code == "113038"
    assert found.rejected["1.1"].code == "113001"
    assert found.served["1.1"].sha256 == "a" * 64
    assert found.patient_key.startswith("k1:")


def test_counts_follow_a_study(archive: Archive) -> None:
    worker = Worker(archive, archive.arrivals)

    def counts(within: str) -> dict[str, int]:
        rows = asyncio.run(worker.tables.select(Select("study_counts", {"within": within})))
        found: dict[str, int] = {}
        for row in rows:
            found[row["part"]] = found.get(row["part"], 0) + row["studies"]
        return found

    assert (counts("ever"), counts("202502")) == ({"2025": 1}, {"20250228": 1})
    worker.corrections([archive.decided(70, {"type": "correct", "attributes": {"StudyDate": "20240110"}})])
    assert (counts("ever"), counts("202502")) == ({"2024": 1, "2025": 0}, {"20250228": 0})
    assert (counts("2024"), counts("202401")) == ({"202401": 1}, {"20240110": 1})
    worker.apply([archive.decided(71, {"type": "reject", "code": "113001"})], "sijil.study.corrections", 200)
    assert (counts("ever"), counts("202401")) == ({"2024": 0, "2025": 0}, {"20240110": 0})
    worker.apply([archive.decided(72, {"type": "restore"})], "sijil.study.corrections", 201)
    worker.apply(
        [archive.decided(73, {"type": "correct", "attributes": {"StudyDate": "20250227"}})],
        "sijil.study.corrections",
        202,
    )
    assert (counts("ever"), counts("202502")) == ({"2024": 0, "2025": 1}, {"20250227": 1, "20250228": 0})


def test_a_study_that_is_not_there(archive: Archive) -> None:
    worker = Worker(archive, archive.arrivals)
    decision = archive.decided(50, {"type": "reject", "code": "113001"}, study="7.7")
    assert worker.corrections([decision]) == ["correction-of-unknown-study"]


def test_a_document_that_is_not_the_events(archive: Archive) -> None:
    worker = Worker(archive, archive.arrivals)
    one, two = (archive.decided(n, DECISIONS[0]) for n in (60, 61))
    swapped = type(one)(**{f: getattr(two if f.startswith("document") else one, f) for f in one.__struct_fields__})
    assert worker.corrections([swapped]) == ["correction-other-document"]
    gone = type(one)(**{f: getattr(one, f) for f in one.__struct_fields__} | {"document_key": "corrections/x"})
    assert worker.corrections([gone]) == ["correction-missing"]


# ------------------------------------------------------------------------------------------------ rejection notes


def note(
    sop: str, code: str, rejected: Sequence[str], *, study: str = STUDY, scheme: str = "DCM", inside: str = STUDY
) -> bytes:
    """A Key Object Selection document, of the study `inside`, that takes instances of `study` back."""
    import pydicom

    title, sops = pydicom.Dataset(), []
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, scheme, "x"
    for uid in rejected:
        reference = pydicom.Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
        sops.append(reference)
    series, evidence = pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3.1", sops
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = study, [series]
    return part10(
        sop,
        study=inside,
        series=f"{inside}.9",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.59",
        Modality="KO",
        ConceptNameCodeSequence=[title],
        CurrentRequestedProcedureEvidenceSequence=[evidence],
    )


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_a_rejection_note_rejects(code: str) -> None:
    it = Archive([part10("1.1"), part10("1.2")], [note("1.9", code, ["1.1", "1.2"])])
    worker = Worker(it, it.arrivals)
    (folded,) = worker.applied[0].studies
    emits = [e for e in decide(folded, 1000, ()) if isinstance(e.event, StudyRejected)]
    (emit,) = emits
    rejected = emit.event
    assert isinstance(rejected, StudyRejected)
    assert (rejected.code, rejected.note_sop_uid, emit.id) == (code, "1.9", rejected.correction_id)
    assert emits == [e for e in decide(folded, 1000, ()) if isinstance(e.event, StudyRejected)]
    assert worker.corrections([rejected]) == []
    found = worker.overlay()
    # Only a note for quality stays to be seen itself.
    assert found.rejected.keys() == {"1.1", "1.2"} | (set() if code == "113001" else {"1.9"})
    # What comes again after its retention has ended is kept anew.
    assert found.rejected["1.1"].until == (2 if code == "113039" else None)
    assert found.rejected["1.1"].hides(3) == (code != "113039")


@pytest.mark.parametrize(
    "document",
    [
        note("1.9", "113000", ["1.1"]),  # Of Interest
        note("1.9", "113001", ["1.1"], scheme="99X"),
        note("1.9", "113001", ["1.1"], study="9.9"),
        note("1.9", "113001", []),
        part10("1.9", Modality="KO"),
    ],
)
def test_other_documents_reject_nothing(document: bytes) -> None:
    it = Archive([part10("1.1")], [document])
    (event,) = [e for e in it.arrivals[1:] if isinstance(e, PackStored)]
    manifest = decode_manifest(it.objects.get(event.bucket, event.manifest_key))
    assert rejection_notes.found(manifest) == []
