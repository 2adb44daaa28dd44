"""C-FIND: identifiers become queries, what is found becomes identifiers, responses have the right statuses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydicom import Dataset
from pynetdicom.dsutils import decode, encode

from consumers.api.views import Views
from consumers.dicom import identifier, services
from consumers.dicom.find import Finder, extended, negotiate
from consumers.dicom.identifier import PATIENT_ROOT, STUDY_ROOT, Extended, character_set, read
from infra import ae_table
from infra.chain import ChainedLog
from infra.dicom_door import DicomDoor
from infra.dicom_exchange import Exchange
from infra.dicom_services import Peer
from infra.memory import MemoryTables
from schemas.errors import Invalid
from schemas.events import AccessGranted
from tests.unit.consumers.archive import DECODERS, MemoryArchive, part10
from tests.unit.consumers.dicom_door import LOOPBACK

RELATIONAL = b"\1\0\0"


@pytest.fixture(scope="module")
def archive() -> MemoryArchive:
    archive = MemoryArchive()
    for n, name in enumerate(["Hassan^Mona=منى حسن", "أحمد^محمد", "Müller^Jürgen", "Said^Ali"], 1):
        for s in (1, 2):
            study = f"1.2.{n}.{s}"
            archive.store(
                [
                    part10(
                        f"{study}.1.{i}",
                        study=study,
                        series=f"{study}.1",
                        PatientName=name,
                        PatientID=f"P-{n}",
                        StudyDate=f"2024010{n}",
                        InstanceNumber=i,
                    )
                    for i in (1, 2)
                ]
            )
    return archive


class Asking:
    """An exchange without a network: what an SCU would send and get."""

    def __init__(self, sop_class: str, keys: Dataset, negotiated: bytes = b"", cancel_after: int | None = None) -> None:
        self.request = SimpleNamespace(
            MessageID=1, AffectedSOPClassUID=sop_class, Identifier=BytesIO(encode(keys, False, True) or b"")
        )
        self.context = SimpleNamespace(abstract_syntax=sop_class, transfer_syntax="1.2.840.10008.1.2.1")
        self.extended = negotiated
        peer = Peer("WORKSTATION", "SIJIL", "127.0.0.1")
        self.peer = replace(peer, caller=ae_table.caller(LOOPBACK, peer.calling_ae, peer.address, "LOCAL"))
        self.answers: list[Any] = []
        self._cancel_after = cancel_after

    def data_set(self, data: BytesIO) -> Dataset:
        with warnings.catch_warnings(action="ignore"):
            found = decode(data, False, True)
            assert [e.value for e in found.iterall()]
        return found

    def encoded(self, data_set: Dataset) -> BytesIO:
        return BytesIO(encode(data_set, False, True) or b"")

    def respond(self, response: Any) -> None:
        self.answers.append(response)

    def cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.answers) >= self._cancel_after

    def gone(self) -> bool:
        return False

    @property
    def statuses(self) -> list[int]:
        return [a.Status for a in self.answers]

    @property
    def found(self) -> list[Dataset]:
        return [decode(a.Identifier, False, True) for a in self.answers if a.Identifier is not None]


@pytest.fixture(scope="module")
def finder(archive: MemoryArchive) -> Iterator[Finder]:
    door = DicomDoor(
        archive.settings, log=archive.log, chain=cast(ChainedLog, archive.journal), objects=archive.objects
    )
    room = services.made(door, Views(lambda: archive.tables), DECODERS)
    room.loop.start()
    room.loop.call(room.room.views.look())
    yield Finder(room, "SIJIL")
    room.loop.close()


def keys(level: str, **values: Any) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = level
    with warnings.catch_warnings(action="ignore"):  # pydicom's, about values that are wrong on purpose
        for keyword, value in values.items():
            setattr(ds, keyword, value)
    return ds


def ask(finder: Finder, asking: Asking) -> Asking:
    finder.answer(cast(Exchange, asking))
    return asking


def test_patients(finder: Finder) -> None:
    asked = keys("PATIENT", PatientName="", PatientID="P-*", NumberOfPatientRelatedStudies=None)
    got = ask(finder, Asking(PATIENT_ROOT, asked))
    assert got.statuses == [0xFF00] * 4 + [0]
    assert {d.PatientID: d.NumberOfPatientRelatedStudies for d in got.found} == {f"P-{n}": 2 for n in range(1, 5)}
    assert all((d.RetrieveAETitle, d.InstanceAvailability, d.QueryRetrieveLevel) == ("SIJIL", "ONLINE", "PATIENT")
               for d in got.found)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "studies"),
    [
        ({"PatientName": "احمد*"}, {"1.2.2.1", "1.2.2.2"}),
        ({"PatientName": "*منى*"}, {"1.2.1.1", "1.2.1.2"}),
        ({"StudyDate": "20240102-20240103", "PatientName": "*"}, {"1.2.2.1", "1.2.2.2", "1.2.3.1", "1.2.3.2"}),
        ({"StudyInstanceUID": ["1.2.1.1", "1.2.4.2"]}, {"1.2.1.1", "1.2.4.2"}),
        ({"ModalitiesInStudy": "MR"}, set()),
    ],
)
def test_studies(finder: Finder, values: dict[str, Any], studies: set[str]) -> None:
    got = ask(finder, Asking(STUDY_ROOT, keys("STUDY", **values)))
    assert got.statuses == [0xFF00] * len(studies) + [0]
    assert {d.StudyInstanceUID for d in got.found} == studies


def test_series_and_images_of_a_study(finder: Finder) -> None:
    series = ask(finder, Asking(STUDY_ROOT, keys("SERIES", StudyInstanceUID="1.2.1.1", Modality="", SeriesNumber=None)))
    assert [(d.SeriesInstanceUID, d.Modality, d.SeriesNumber) for d in series.found] == [("1.2.1.1.1", "CT", 1)]
    asked = keys("IMAGE", StudyInstanceUID="1.2.1.1", SeriesInstanceUID="1.2.1.1.1", InstanceNumber=2, Rows=None)
    images = ask(finder, Asking(STUDY_ROOT, asked))
    assert [(d.SOPInstanceUID, d.InstanceNumber, d.Rows) for d in images.found] == [("1.2.1.1.1.2", 2, 4)]


def test_levels_below_need_the_keys_above_unless_relational(finder: Finder) -> None:
    asked = keys("SERIES", PatientID="P-1", Modality="CT")
    assert ask(finder, Asking(STUDY_ROOT, asked)).statuses == [0xA900]
    got = ask(finder, Asking(STUDY_ROOT, asked, RELATIONAL))
    assert got.statuses == [0xFF00, 0xFF00, 0]
    assert ask(finder, Asking(PATIENT_ROOT, keys("STUDY", StudyDate=""))).statuses == [0xA900]


@pytest.mark.parametrize(
    "asked",
    [
        keys("", PatientID="P-1"),
        keys("PATIENT", PatientID="P-1"),
        keys("WHAT"),
        keys("STUDY", StudyInstanceUID="not a uid"),
        keys("STUDY", StudyDate="2024"),
    ],
)
def test_what_is_no_identifier(finder: Finder, asked: Dataset) -> None:
    got = ask(finder, Asking(STUDY_ROOT, asked))
    assert got.statuses == [0xA900]
    assert got.answers[0].ErrorComment


def test_keys_that_are_not_supported_are_told_and_left_empty(finder: Finder) -> None:
    got = ask(
        finder,
        Asking(STUDY_ROOT, keys("STUDY", StudyInstanceUID="1.2.1.1", Modality="", InsurancePlanIdentification="")),
    )
    assert got.statuses == [0xFF01, 0]
    assert not got.found[0].get("Modality")


def test_fuzzy_and_combined_matching_are_negotiated(finder: Finder) -> None:
    fuzzy = keys("STUDY", PatientName="mona hass")
    assert ask(finder, Asking(STUDY_ROOT, fuzzy)).statuses == [0]
    assert len(ask(finder, Asking(STUDY_ROOT, fuzzy, b"\0\0\1")).found) == 2
    moments = keys("STUDY", StudyDate="20240101-20240102", StudyTime="1200-1100")
    assert ask(finder, Asking(STUDY_ROOT, moments)).found == []
    assert len(ask(finder, Asking(STUDY_ROOT, moments, b"\0\1\0")).found) == 2


def test_a_query_is_cancelled(finder: Finder) -> None:
    got = ask(finder, Asking(STUDY_ROOT, keys("STUDY", StudyDate=""), cancel_after=3))
    assert got.statuses == [0xFF00] * 3 + [0xFE00]


def test_a_query_is_recorded_before_its_first_answer(finder: Finder, archive: MemoryArchive) -> None:
    before = len(archive.journal.published)
    ask(finder, Asking(STUDY_ROOT, keys("STUDY", PatientID="P-1")))
    (event,) = [p.event for p in archive.journal.published[before:]]
    assert isinstance(event, AccessGranted)
    assert (event.action, event.actor) == ("query", "ae:WORKSTATION@127.0.0.1")
    assert {s.study_uid for s in event.shown} == {"1.2.1.1", "1.2.1.2"}
    assert list(event.search) == ["PatientID"]
    archive.journal.full = True
    try:
        refused = ask(finder, Asking(STUDY_ROOT, keys("STUDY", PatientID="P-1")))
    finally:
        archive.journal.full = False
    assert (refused.statuses, refused.found) == ([0xA700], [])


def test_with_the_read_models_away_the_query_is_refused(finder: Finder) -> None:
    tables = cast(MemoryTables, finder._room.room.views.tables)
    tables.away = True
    try:
        refused = ask(finder, Asking(STUDY_ROOT, keys("STUDY", PatientID="P-1")))
    finally:
        tables.away = False
    assert (refused.statuses, refused.found) == ([0xA700], [])


@pytest.mark.parametrize(
    ("asked", "patient", "charset"),
    [
        ("ISO_IR 192", "P-2", "ISO_IR 192"),
        ("ISO_IR 127", "P-2", "ISO_IR 127"),
        ("ISO_IR 127", "P-3", "ISO_IR 192"),
        ("ISO_IR 100", "P-3", "ISO_IR 100"),
        ("ISO_IR 100", "P-2", "ISO_IR 192"),
        ("", "P-2", "ISO_IR 192"),
        ("", "P-4", ""),
    ],
)
def test_answers_come_in_the_character_set_of_the_query(finder: Finder, asked: str, patient: str, charset: str) -> None:
    identifier = keys("STUDY", PatientID=patient, PatientName="")
    identifier.SpecificCharacterSet = asked
    found = ask(finder, Asking(STUDY_ROOT, identifier)).found[0]
    assert found.get("SpecificCharacterSet", "") == charset
    names = {"P-2": "أحمد^محمد", "P-3": "Müller^Jürgen", "P-4": "Said^Ali"}
    assert str(found.PatientName) == names[patient]


def test_character_sets_of_several_encodings_fall_back() -> None:
    assert character_set("ISO 2022 IR 6\\ISO 2022 IR 87", ["abc"]) == ""
    assert character_set("ISO 2022 IR 6\\ISO 2022 IR 87", ["山田"]) == "ISO_IR 192"
    assert character_set("GB18030", ["王"]) == "GB18030"


def test_sequences_are_matched_and_shown() -> None:
    inner = Dataset()
    inner.ScheduledProcedureStepID, inner.RequestedProcedureID = "STEP1", ""
    asked = keys("SERIES", StudyInstanceUID="1.2", RequestAttributesSequence=[inner])
    got = read(asked, STUDY_ROOT, Extended())
    assert {c.attribute.tag: c.values for c in got.query.conditions} == {
        "0020000D": ("1.2",),
        "00400275.00400009": ("STEP1",),
    }
    found: dict[str, dict[str, Any]] = {
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "00400275": {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["STEP1"]}, "00400007": {"vr": "LO"}}]},
    }
    (item,) = identifier.written(got, found, "SIJIL").RequestAttributesSequence
    assert (item.ScheduledProcedureStepID, item.get("RequestedProcedureID")) == ("STEP1", None)
    assert len(item) == 2


def test_negotiation() -> None:
    assert negotiate(STUDY_ROOT, ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]) == "1.2.840.10008.1.2.1"
    assert negotiate("1.2.840.10008.1.1", ["1.2.840.10008.1.2"]) is None
    event = SimpleNamespace(app_info={STUDY_ROOT: b"\1\1\1\1\1", "1.2.3": b"\1"})
    assert extended(event) == {STUDY_ROOT: b"\1\1\1\0\0"}
    with pytest.raises(Invalid):
        read(keys("PATIENT"), STUDY_ROOT, Extended())
