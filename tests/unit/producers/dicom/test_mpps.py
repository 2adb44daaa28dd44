"""Modality Performed Procedure Steps by pynetdicom's SCU: what is kept, published and answered."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE

from infra import ae_table
from infra.ae_table import Ae
from infra.chain import ChainedLog
from infra.dicom_door import DicomDoor, Listener
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from producers.dicom import mpps
from producers.dicom.performed_step import MPPS, STATUSES
from schemas import steps
from schemas.envelope import decode
from schemas.errors import Transient
from schemas.events import StepEnded, StepStarted
from schemas.steps import decode_step, document_key

STUDY = "2.25.1001"
TOPIC = "sijil.orders"


def begun(**changes: Any) -> Dataset:
    """What a CT says when it begins: an Arabic name in UTF-8."""
    scheduled = Dataset()
    scheduled.StudyInstanceUID = STUDY
    scheduled.AccessionNumber = "CANARY-ACC-7"
    scheduled.ScheduledProcedureStepID = "1"
    scheduled.RequestedProcedureID = "1"
    found = Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    found.PatientName = "Canary^Mona=منى"
    found.PatientID = "CANARY-7"
    found.ScheduledStepAttributesSequence = [scheduled]
    found.PerformedProcedureStepID = "PPS1"
    found.PerformedStationAETitle = "CT1"
    found.PerformedProcedureStepStartDate = "20250301"
    found.PerformedProcedureStepStartTime = "0801"
    found.PerformedProcedureStepStatus = "IN PROGRESS"
    found.Modality = "CT"
    found.PerformedSeriesSequence = []
    for keyword, value in changes.items():
        setattr(found, keyword, value)
    return found


def ended(status: str = "COMPLETED", sops: int = 3, **changes: Any) -> Dataset:
    """What it says when it ends."""
    series = Dataset()
    series.SeriesInstanceUID = f"{STUDY}.1"
    series.ProtocolName = "Head"
    series.ReferencedImageSequence = []
    for n in range(sops):
        image = Dataset()
        image.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        image.ReferencedSOPInstanceUID = f"{STUDY}.1.{n + 1}"
        series.ReferencedImageSequence.append(image)
    found = Dataset()
    found.PerformedProcedureStepStatus = status
    found.PerformedProcedureStepEndDate = "20250301"
    found.PerformedProcedureStepEndTime = "0815"
    found.PerformedSeriesSequence = [series]
    for keyword, value in changes.items():
        setattr(found, keyword, value)
    return found


class Unsteady(MemoryObjects):
    """S3 that can be away."""

    away = False

    def put(self, *args: Any, **named: Any) -> Any:
        if self.away:
            raise Transient("S3 is away")
        return super().put(*args, **named)


@dataclass
class World:
    """A door over ports in memory; each AE of the table may call it."""

    port: int
    log: MemoryLog
    objects: Unsteady
    uid: str = ""
    """Of the test's own step."""

    @contextmanager
    def device(self, title: str = "CT1") -> Iterator[Any]:
        ae = AE(title)
        ae.add_requested_context(MPPS, ImplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", self.port, ae_title="SIJIL")
        assert association.is_established
        yield association
        association.release()

    def create(self, dataset: Dataset, title: str = "CT1") -> Dataset:
        with self.device(title) as device:
            status: Dataset = device.send_n_create(dataset, MPPS, self.uid)[0]
        return status

    def set(self, dataset: Dataset, title: str = "CT1") -> Dataset:
        with self.device(title) as device:
            status: Dataset = device.send_n_set(dataset, MPPS, self.uid)[0]
        return status

    def events(self) -> list[Any]:
        found = []
        for r in self.log.read(TOPIC, {}, self.log.ends(TOPIC)):
            assert b"CANARY" not in (r.value or b""), "who it is, and the accession number, stay out of the log"
            found.append(decode(TOPIC, r.key, r.headers, r.value))
        return [e for e in found if e.event.key() == self.uid]

    def document(self, version: int) -> steps.StepDocument:
        return decode_step(self.objects.get("sijil-documents", document_key(self.uid, version)))


@pytest.fixture(scope="module")
def open_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tmp_path = tmp_path_factory.mktemp("mpps")
    log, objects = MemoryLog(), Unsteady()
    settings = replace(Settings(search_secret="00" * 32), home=tmp_path, dicom_port=0)
    chain = ChainedLog(log, tmp_path / "chain", "/gateway/LOCAL/1", backlog_max=100, anchors=None)
    door = DicomDoor(settings, log=log, chain=chain, objects=objects)
    rows = [Ae("CT1", "127.0.0.1", 0, site="CAIRO"), Ae("CT2", "127.0.0.1", 0, site="GIZA")]
    rows.append(Ae("HIS", "127.0.0.1", 0, role="ehr"))

    def caller(peer: Any) -> Any:
        ae = ae_table.find_caller(rows, peer.calling_ae, peer.address)
        return ae_table.caller(ae, peer.calling_ae, peer.address, "LOCAL") if ae else None

    door.identify = caller
    mpps.register(door)
    listener = Listener(door)
    listener.start()
    yield World(listener.port, log, objects)
    listener.close(2)
    chain.close(0.1)


numbers = itertools.count(1)


@pytest.fixture
def world(open_world: World) -> World:
    return replace(open_world, uid=f"1.2.826.0.1.{next(numbers)}")


def test_an_examination_from_beginning_to_end(world: World) -> None:
    assert world.create(begun()).Status == 0x0000
    going_on = Dataset()
    going_on.CommentsOnThePerformedProcedureStep = "CANARY contrast given"
    assert world.set(going_on).Status == 0x0000
    assert world.set(ended()).Status == 0x0000
    first, last = (e.event for e in world.events())
    assert isinstance(first, StepStarted)
    assert (first.step_uid, first.study_uids, first.site) == (world.uid, [STUDY], "CAIRO")
    assert (first.station_ae, first.modality, first.version) == ("CT1", "CT", 1)
    assert isinstance(last, StepEnded)
    assert (last.outcome, last.series, last.instances, last.version) == ("completed", 1, 3, 3)
    kept = world.document(3)
    assert kept.dataset["00100010"]["Value"] == [{"Alphabetic": "Canary^Mona", "Ideographic": "منى"}]
    assert kept.dataset["00400280"]["Value"] == ["CANARY contrast given"], "what came in between is kept"
    assert steps.accessions(kept.dataset) == {"CANARY-ACC-7": STUDY}
    assert world.document(1).status == "IN PROGRESS", "every version stays"


def test_a_step_that_has_ended_changes_no_more(world: World) -> None:
    world.create(begun())
    world.set(ended("DISCONTINUED", sops=0))
    refused = world.set(ended("COMPLETED"))
    assert (refused.Status, refused.ErrorID) == (0x0110, 0xA710)
    assert [type(e.event) for e in world.events()] == [StepStarted, StepEnded]
    assert world.events()[1].event.outcome == "discontinued"


def test_what_comes_again_is_a_success_and_no_other_fact(world: World) -> None:
    for _ in range(2):
        assert world.create(begun()).Status == 0x0000
    for _ in range(2):
        assert world.set(ended()).Status == 0x0000
    events = world.events()
    assert len(events) == 4
    assert len({e.id for e in events}) == 2, "the same ids: readers drop the second"
    assert world.create(begun(PatientID="OTHER")).Status == 0x0111


def test_the_patient_and_the_order_of_a_step_stay(world: World) -> None:
    world.create(begun())
    answer = world.set(ended(PatientID="CANARY-8", Modality="MR"))
    assert answer.Status == 0x0107
    assert sorted(int(t) for t in answer.AttributeIdentifierList) == [0x00080060, 0x00100020]
    kept = world.document(2)
    assert (kept.status, steps.value(kept.dataset, "00100020")) == ("COMPLETED", "CANARY-7")


@pytest.mark.parametrize(
    ("dataset", "status"),
    [
        (begun(PerformedProcedureStepStatus="COMPLETED"), 0x0106),
        (begun(PerformedProcedureStepID=""), 0x0121),
        (begun(ScheduledStepAttributesSequence=[]), 0x0121),
        (begun(ScheduledStepAttributesSequence=[Dataset()]), 0x0121),
        (ended(), 0x0120),
    ],
)
def test_what_is_no_beginning_is_refused_by_its_fault(world: World, dataset: Dataset, status: int) -> None:
    assert world.create(dataset).Status == status
    assert world.events() == []
    assert status in STATUSES


def test_what_is_no_end_is_refused(world: World) -> None:
    assert world.set(ended()).Status == 0x0112, "never begun"
    world.create(begun())
    no_date = ended()
    del no_date.PerformedProcedureStepEndDate
    assert world.set(no_date).Status == 0x0120
    assert world.set(ended("FINISHED")).Status == 0x0106
    wrong = ended()
    wrong.PerformedSeriesSequence[0].SeriesInstanceUID = "not-a-uid"
    assert world.set(wrong).Status == 0x0106
    assert world.document(1).status == "IN PROGRESS"
    assert len(world.events()) == 1


def test_only_a_site_s_own_devices_change_its_steps(world: World) -> None:
    assert world.create(begun(), title="HIS").Status == 0x0124, "its role does not store"
    world.create(begun())
    assert world.set(ended(), title="CT2").Status == 0x0124
    assert world.set(ended()).Status == 0x0000


def test_a_device_without_a_uid_is_given_one(world: World) -> None:
    with world.device() as device:
        status, _ = device.send_n_create(begun(), MPPS, None)
    assert status.Status == 0x0000
    (given,) = {r.key for r in world.log.read(TOPIC, {}, world.log.ends(TOPIC)) if (r.key or b"").startswith(b"2.25.")}
    assert replace(world, uid=(given or b"").decode()).set(ended()).Status == 0x0000


def test_with_s3_away_the_device_is_told_to_try_again(world: World) -> None:
    world.objects.away = True
    assert world.create(begun()).Status == 0x0110
    assert world.events() == []
    world.objects.away = False
    assert world.create(begun()).Status == 0x0000
    assert len(world.events()) == 1
