"""Storage commitment through both doors, pynetdicom being the requester; what stands behind the doors is in memory."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset

from infra.ae_table import Ae
from infra.memory import MemoryLog, MemoryObjects
from producers.commitment import worker
from tests.stack.commitment_scu import CT, Modality, asked
from tests.stack.gateway_doors import Doors, open_doors
from tests.stack.raw_scu import RawScu
from tests.unit.producers.samples import dataset, file

MR = "1.2.840.10008.5.1.4.1.1.4"


class Known:
    """Read models that know given instances."""

    def __init__(self, classes: Mapping[str, str]) -> None:
        self.classes = dict(classes)
        self.passed = True

    def mark(self) -> Mapping[int, int]:
        return {0: 1}

    def find(self, sop_uids: Collection[str]) -> Mapping[str, frozenset[str]]:
        return {u: frozenset({self.classes[u]}) for u in sop_uids if u in self.classes}

    def has_passed(self, mark: Mapping[int, int]) -> bool:
        return self.passed


@pytest.fixture
def modality() -> Iterator[Modality]:
    with Modality() as found:
        yield found


@pytest.fixture
def table(modality: Modality) -> list[Ae]:
    return [Ae("MODALITY1", "127.0.0.1", modality.port), Ae("*", "127.0.0.0/8", 0)]


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: list[Ae]) -> Iterator[Doors]:
    monkeypatch.setattr(worker, "REPORT_S", (0.2, 0.5))
    with open_doors(tmp_path / "home", monkeypatch, table, commitment_grace_s=0.2, pack_idle_s=60.0) as both:
        both.dicom.committed = both.http.committed = Known({})
        yield both


def store(doors: Doors, *sops: str, sop_class: str = CT, pixels: bytes = b"\1\2\3\4") -> None:
    with RawScu(doors.dicom_port) as scu:
        for sop in sops:
            assert scu.store(sop, dataset(sop, sop_class=sop_class, pixels=pixels)) == 0
        scu.release()


def left(doors: Doors) -> list[Path]:
    return list((doors.settings.spool("gateway") / "commitments").iterdir())


@pytest.mark.client("pynetdicom", feature="Storage Commitment")
def test_a_commitment_seals_and_is_reported_on_a_new_association(doors: Doors, modality: Modality) -> None:
    sops = [f"1.2.{n}" for n in range(5)]
    assoc = modality.associate(doors.dicom_port)
    with RawScu(doors.dicom_port) as scu:  # an association that still feeds the pack does not keep it open
        for sop in sops:
            assert scu.store(sop, dataset(sop)) == 0
        assert modality.action(assoc, asked("1.9.1", sops)) == 0
        assoc.release()
        report = modality.report()
    assert (report.event_type, report.transaction, report.committed, report.failed) == (1, "1.9.1", sops, {})
    assert (report.as_requestor, report.scp_proposed, report.retrieve_ae) == (False, True, "SIJIL")
    assert {i.sop_uid for m in doors.manifests() for i in m.instances} == set(sops)
    doors.until(lambda: left(doors) == [])


@pytest.mark.client("pynetdicom", feature="Storage Commitment")
def test_on_the_same_association_while_it_is_open(doors: Doors, modality: Modality) -> None:
    store(doors, "1.2.1")
    assoc = modality.associate(doors.dicom_port, role=False)
    assert modality.action(assoc, asked("1.9.1", ["1.2.1"])) == 0
    report = modality.report()
    assert (report.as_requestor, report.committed) == (True, ["1.2.1"])
    # The association goes on, and the same instances may be asked for again.
    assert modality.action(assoc, asked("1.9.2", ["1.2.1"])) == 0
    assert modality.report().transaction == "1.9.2"
    assoc.release()
    assert assoc.is_released


def test_failures_say_why(doors: Doors, modality: Modality) -> None:
    store(doors, "1.2.1", "1.2.2")
    doors.dicom.committed = Known({"1.2.7": CT, "1.2.8": MR})
    information = asked("1.9.1", ["1.2.1", "1.2.7", "1.2.8", "1.2.9"])
    information.ReferencedSOPSequence += asked("1", ["1.2.2"], MR).ReferencedSOPSequence
    information.ReferencedSOPSequence += asked("1", ["1.2.3"], "1.2.840.10008.1.1").ReferencedSOPSequence
    assoc = modality.associate(doors.dicom_port)
    assert modality.action(assoc, information) == 0
    assoc.release()
    report = modality.report()
    assert (report.event_type, report.committed) == (2, ["1.2.1", "1.2.7"])
    assert report.failed == {"1.2.8": 0x0119, "1.2.9": 0x0112, "1.2.2": 0x0119, "1.2.3": 0x0122}


def test_never_received_waits_for_the_read_models(doors: Doors, modality: Modality) -> None:
    doors.dicom.committed = known = Known({})
    known.passed = False
    assert modality.ask(doors.dicom_port, "1.9.1", ["1.2.1"]) == 0
    with pytest.raises(queue.Empty):
        modality.report(1.0)
    known.classes["1.2.1"], known.passed = CT, True  # it came by another gateway
    assert modality.report().committed == ["1.2.1"]


def test_copies_that_conflict_are_kept_and_committed(doors: Doors, modality: Modality) -> None:
    store(doors, "1.2.1")
    store(doors, "1.2.1", pixels=b"\5\6\7\10")
    assert modality.ask(doors.dicom_port, "1.9.1", ["1.2.1"]) == 0
    assert modality.report().committed == ["1.2.1"]
    assert sum(m.pack.instances for m in doors.manifests()) == 2


@pytest.mark.parametrize(
    ("information", "action", "instance", "status"),
    [
        (asked("1.9.1", []), 1, "1.2.840.10008.1.20.1.1", 0x0115),
        (asked("x", ["1.2.1"]), 1, "1.2.840.10008.1.20.1.1", 0x0115),
        (Dataset(), 1, "1.2.840.10008.1.20.1.1", 0x0115),
        (asked("1.9.1", ["1.2.1"]), 2, "1.2.840.10008.1.20.1.1", 0x0123),
        (asked("1.9.1", ["1.2.1"]), 1, "1.2.3", 0x0112),
    ],
)
def test_statuses(
    doors: Doors, modality: Modality, information: Dataset, action: int, instance: str, status: int
) -> None:
    information.PatientID = "1"  # an empty dataset would not be sent at all
    assoc = modality.associate(doors.dicom_port)
    assert modality.action(assoc, information, action, instance) == status
    assert modality.action(assoc, asked("1.9.5", ["1.2.1"])) == 0
    assoc.release()


def test_a_transaction_uid_in_use(doors: Doors, modality: Modality) -> None:
    doors.dicom.committed = known = Known({})
    known.passed = False
    assert modality.ask(doors.dicom_port, "1.9.1", ["1.2.1"]) == 0
    assert modality.ask(doors.dicom_port, "1.9.1", ["1.2.1"]) == 0  # its response was lost
    assert modality.ask(doors.dicom_port, "1.9.1", ["1.2.2"]) == 0x0131
    with Modality("OTHER") as other:  # chooses its UIDs without knowing of us
        assert other.ask(doors.dicom_port, "1.9.1", ["1.2.2"]) == 0
    assert len(left(doors)) == 2


def test_no_report_before_s3_has_it_and_none_is_lost_by_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: list[Ae], modality: Modality
) -> None:
    log, objects = MemoryLog(), MemoryObjects()
    objects.away = True
    with open_doors(tmp_path / "home", monkeypatch, table, (log, objects)) as doors:
        store(doors, "1.2.1", "1.2.2")
        assert modality.ask(doors.dicom_port, "1.9.1", ["1.2.1", "1.2.2"]) == 0
        with pytest.raises(queue.Empty):
            modality.report(1.0)
    with open_doors(tmp_path / "home", monkeypatch, table, (log, objects)) as doors:
        with pytest.raises(queue.Empty):
            modality.report(0.5)
        objects.away = False
        assert modality.report().committed == ["1.2.1", "1.2.2"]
        doors.until(lambda: left(doors) == [])


def test_a_report_is_tried_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: Modality
) -> None:
    monkeypatch.setattr(worker, "REPORT_S", (0.1, 0.3))
    statuses = iter([0x0110, 0x0213, 0x0000])
    with Modality("PICKY", lambda: next(statuses)) as picky:
        entries = [Ae("PICKY", "127.0.0.0/8", picky.port), Ae("*", "127.0.0.0/8", 0)]
        # A port on which nobody listens holds up nobody else.
        entries.append(Ae("DEAF", "127.0.0.1", 9))
        with open_doors(tmp_path / "home", monkeypatch, entries) as doors, Modality("DEAF") as deaf:
            store(doors, "1.2.1")
            assert deaf.ask(doors.dicom_port, "1.9.1", ["1.2.1"]) == 0
            assert picky.ask(doors.dicom_port, "1.9.1", ["1.2.1"]) == 0
            assert [picky.report().committed for _ in range(3)] == [["1.2.1"]] * 3
            doors.until(lambda: len(left(doors)) == 1)
            time.sleep(0.5)
            assert picky.reports.empty()


def test_an_ae_without_an_address_is_told_when_it_asks_again(doors: Doors) -> None:
    with Modality("NOWHERE") as nowhere:
        store(doors, "1.2.1", "1.2.2")
        assert nowhere.ask(doors.dicom_port, "1.9.1", ["1.2.1"]) == 0
        doors.until(lambda: b"outcome" in b"".join(p.read_bytes() for p in left(doors)))
        with pytest.raises(queue.Empty):
            nowhere.report(0.5)
        assoc = nowhere.associate(doors.dicom_port)
        assert nowhere.action(assoc, asked("1.9.2", ["1.2.2"])) == 0
        assert {nowhere.report().transaction, nowhere.report().transaction} == {"1.9.1", "1.9.2"}
        assoc.release()
        doors.until(lambda: left(doors) == [])


# ------------------------------------------------------------------------------------------------ PS3.18 §13


def payload(*sops: str) -> bytes:
    items = [{"00081150": {"vr": "UI", "Value": [CT]}, "00081155": {"vr": "UI", "Value": [s]}} for s in sops]
    return json.dumps([{"00081199": {"vr": "SQ", "Value": items}}]).encode()


def post(doors: Doors, transaction: str, body: bytes, **headers: str) -> httpx.Response:
    given = {"Content-Type": "application/dicom+json", "Accept": "application/dicom+json", **headers}
    return httpx.post(f"{doors.url}/commitment-requests/{transaction}", content=body, headers=given, timeout=20)


def get(doors: Doors, transaction: str) -> httpx.Response:
    return httpx.get(f"{doors.url}/commitment-requests/{transaction}", timeout=20)


def uids(answer: httpx.Response, tag: str) -> list[str]:
    sequence: Any = answer.json().get(tag, {"Value": []})
    return [item["00081155"]["Value"][0] for item in sequence["Value"]]


@pytest.mark.client("httpx", feature="Storage Commitment by HTTP")
def test_commitment_by_http(doors: Doors) -> None:
    stowed = httpx.post(f"{doors.url}/studies", content=file("1.2.1"), headers={"Content-Type": "application/dicom"})
    assert stowed.status_code == 200
    at_once = post(doors, "1.9.1", payload("1.2.1"))
    assert (at_once.status_code, uids(at_once, "00081199")) == (200, ["1.2.1"])
    assert get(doors, "1.9.1").content == at_once.content
    assert post(doors, "1.9.1", payload("1.2.1")).status_code == 200
    assert post(doors, "1.9.1", payload("1.2.2")).status_code == 409
    assert get(doors, "1.9.2").status_code == 404


def test_commitment_by_http_of_what_is_not_there_yet(doors: Doors) -> None:
    doors.http.committed = known = Known({})
    known.passed = False
    first = post(doors, "1.9.1", payload("1.2.9", "1.2.1"))
    assert (first.status_code, first.headers["retry-after"], first.content) == (202, "5", b"")
    assert get(doors, "1.9.1").status_code == 202
    known.classes["1.2.1"], known.passed = CT, True
    doors.until(lambda: get(doors, "1.9.1").status_code == 200, 20)
    result = get(doors, "1.9.1")
    assert (uids(result, "00081199"), uids(result, "00081198")) == (["1.2.1"], ["1.2.9"])
    assert result.json()["00081198"]["Value"][0]["00081197"] == {"vr": "US", "Value": [0x0112]}


def test_requests_by_http_that_are_none(doors: Doors) -> None:
    assert post(doors, "x", payload("1.2.1")).status_code == 400
    assert post(doors, "1.9.1", b"{").status_code == 400
    assert post(doors, "1.9.1", payload()).status_code == 400
    assert post(doors, "1.9.1", payload("1.2.1"), **{"Content-Type": "application/dicom+xml"}).status_code == 415
    assert post(doors, "1.9.1", payload("1.2.1"), Accept="text/html").status_code == 406
