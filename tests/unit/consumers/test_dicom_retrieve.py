"""C-MOVE and C-GET with DCMTK and pynetdicom over the archive in memory: every dataset compared byte by byte."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from consumers.dicom.implicit import to_implicit
from consumers.dicom.move import Places
from consumers.dicom.retrieval import MOVE_MODELS, Progress, accept, wanted
from consumers.dicom.sending import proposals
from infra.ae_table import Ae
from infra.dicom_scu import Refused
from schemas.errors import Invalid
from schemas.events import AccessGranted, AccessUsed
from tests.archive import dataset
from tests.crash.test_gateway_kill import free_port
from tests.unit.consumers.archive import MemoryArchive, part10, sample
from tests.unit.consumers.dicom_door import OpenDoor, open_door, storescp
from tests.unit.consumers.test_corrections import Corrected

PATIENT_MOVE, STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
STUDY, SERIES = "1.2.3", "1.2.3.1"
FILES = {f"1.2.3.1.{n}": part10(f"1.2.3.1.{n}", pixels=bytes([n]) * 32) for n in range(6)}
OTHER = {"1.2.4.1.1": part10("1.2.4.1.1", study="1.2.4", series="1.2.4.1", syntax=IMPLICIT)}


@pytest.fixture(scope="module")
def archive() -> MemoryArchive:
    found = MemoryArchive()
    found.store(list(FILES.values()))
    found.store(list(OTHER.values()))
    return found


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def door(archive: MemoryArchive, port: int) -> Iterator[OpenDoor]:
    entries = [
        Ae("DEST", "127.0.0.1", port),
        Ae("NOPORT", "127.0.0.1", 0),
        Ae("NET", "127.0.0.0/8", port),
        Ae("DEAF", "127.0.0.1", 9),
    ]
    with open_door(archive, entries) as found:
        yield found


def keys(level: str, **uids: str) -> list[str]:
    names = {
        "study": "StudyInstanceUID",
        "series": "SeriesInstanceUID",
        "sop": "SOPInstanceUID",
        "patient": "PatientID",
    }
    said = [f"QueryRetrieveLevel={level}", *(f"{names[k]}={v}" for k, v in uids.items())]
    return [x for key in said for x in ("-k", key)]


def received(folder: Path) -> dict[str, bytes]:
    """SOP Instance UID → dataset's bytes."""
    found = {}
    for path in folder.iterdir():
        data = path.read_bytes()
        found[str(pydicom.dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID)] = dataset(data)
    return found


def datasets(files: dict[str, bytes]) -> dict[str, bytes]:
    return {uid: dataset(data) for uid, data in files.items()}


# ------------------------------------------------------------------------------------------------ DCMTK


@pytest.mark.client("dcmtk movescu", feature="C-MOVE")
@pytest.mark.client("dcmtk getscu", feature="C-GET")
@pytest.mark.parametrize(
    ("options", "asked", "expected"),
    [
        (["-S"], keys("STUDY", study=STUDY), FILES),
        (["-P"], keys("PATIENT", patient="P-77"), {**FILES, **OTHER}),
        (["-P"], keys("STUDY", patient="P-77", study=STUDY), FILES),
        (["-P"], keys("STUDY", patient="P-78", study=STUDY), {}),
        (["-S"], keys("SERIES", study=STUDY, series=SERIES), FILES),
        (["-S"], keys("IMAGE", study=STUDY, series=SERIES, sop="1.2.3.1.2"), {"1.2.3.1.2": FILES["1.2.3.1.2"]}),
        (
            ["-S"],
            keys("IMAGE", study=STUDY, series=SERIES, sop="1.2.3.1.2\\1.2.3.1.4\\1.2.3.1.99"),
            {u: FILES[u] for u in ("1.2.3.1.2", "1.2.3.1.4")},
        ),
        (["-S"], keys("STUDY", study="1.2.3\\1.2.4"), {**FILES, **OTHER}),
        (["-S"], keys("STUDY", study="1.2.99"), {}),
    ],
)
def test_movescu_and_getscu(
    door: OpenDoor, port: int, tmp_path: Path, options: list[str], asked: list[str], expected: dict[str, bytes]
) -> None:
    with storescp(tmp_path / "moved", "+xa", port=port) as folder:
        said = door.run("movescu", *options, "-aem", "DEST", *asked)
        assert said.returncode == 0, said.stderr
        assert received(folder) == datasets(expected)
    (tmp_path / "got").mkdir()
    said = door.run("getscu", "+B", *options, "-od", str(tmp_path / "got"), *asked)
    assert said.returncode == 0, said.stderr
    # getscu offers Explicit before Implicit VR, so Implicit VR arrives as Explicit.
    got = received(tmp_path / "got")
    assert got.keys() == expected.keys()
    assert all(got[u] == dataset(FILES[u]) for u in got if u in FILES)


@pytest.mark.client("dcmtk movescu", feature="C-MOVE")
def test_what_the_destination_takes_decides(tmp_path: Path) -> None:
    """Compressed as stored where that is taken; decoded losslessly where only Explicit or Implicit VR is."""
    own = MemoryArchive()
    jpeg2000 = sample("MR_small_jp2klossless.dcm")
    own.store([jpeg2000])
    plain = pydicom.dcmread(BytesIO(sample("MR_small.dcm")))
    port = free_port()
    asked = keys("STUDY", study=str(plain.StudyInstanceUID))
    with open_door(own, [Ae("DEST", "127.0.0.1", port)]) as door:
        for option, syntax in (("+xa", "1.2.840.10008.1.2.4.90"), ("+xe", EXPLICIT), ("+xi", IMPLICIT)):
            with storescp(tmp_path / option, option, port=port) as folder:
                said = door.run("movescu", "-S", "-aem", "DEST", *asked)
                assert said.returncode == 0, said.stderr
                (path,) = folder.iterdir()
                found = pydicom.dcmread(path)
                assert found.file_meta.TransferSyntaxUID == syntax
                if option == "+xa":
                    assert dataset(path.read_bytes()) == dataset(jpeg2000)
                else:
                    assert (found.pixel_array == plain.pixel_array).all()
                    assert found.PatientName == plain.PatientName


@pytest.mark.parametrize(
    ("title", "asked", "status"),
    [
        ("NOBODY", keys("STUDY", study=STUDY), "0xa801"),
        ("NOPORT", keys("STUDY", study=STUDY), "0xa801"),
        ("NET", keys("STUDY", study=STUDY), "0xa801"),
        ("DEST", keys("STUDY"), "0xa900"),
        ("DEST", keys("SERIES", series=SERIES), "0xa900"),
        ("DEST", keys("PATIENT", patient="P-77"), "0xa900"),  # not a level of Study Root
        ("DEST", keys("STUDY", study="x"), "0xa900"),
        ("DEAF", keys("STUDY", study=STUDY), "0xa702"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_refusals(door: OpenDoor, title: str, asked: list[str], status: str) -> None:
    said = door.run("movescu", "-d", "-S", "-aem", title, *asked)
    assert status in (said.stdout + said.stderr).lower()


# ------------------------------------------------------------------------------------------------ pynetdicom


class Receiver:
    """A destination that answers as it is told."""

    def __init__(self, port: int, answer: Any, contexts: tuple[str, ...] = (CT,)) -> None:
        self.stored: list[Any] = []
        ae = AE("DEST")
        for context in contexts:
            ae.add_supported_context(context, [EXPLICIT, IMPLICIT])

        def store(event: Any) -> int:
            self.stored.append(event.request)
            return int(answer(event))

        handlers: Any = [(evt.EVT_C_STORE, store)]
        self._server: Any = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


def associate(door: OpenDoor, *models: str) -> Association:
    ae = AE("WORKSTATION")
    for model in models:
        ae.add_requested_context(model)
    assoc = ae.associate("127.0.0.1", door.port, ae_title="SIJIL")
    assert assoc.is_established
    return assoc


def identifier(level: str, **values: str) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


@pytest.mark.client("pynetdicom", feature="C-MOVE")
def test_counts_warnings_failures_and_the_originator(door: OpenDoor, port: int) -> None:
    statuses = iter([0x0000, 0xB000, 0xA700, 0x0000, 0xC001, 0x0000])
    with Receiver(port, lambda _: next(statuses)) as receiver:
        assoc = associate(door, STUDY_MOVE)
        asked = identifier("STUDY", StudyInstanceUID=STUDY)
        answers = list(assoc.send_c_move(asked, "DEST", STUDY_MOVE, msg_id=77))
        assoc.release()
    assert {a.MoveOriginatorApplicationEntityTitle for a in receiver.stored} == {"WORKSTATION"}
    assert {a.MoveOriginatorMessageID for a in receiver.stored} == {77}
    *pending, (last, failed) = answers
    assert pending[0][0].NumberOfRemainingSuboperations == 5
    assert [s.Status for s, _ in pending] == [0xFF00] * len(pending)
    counts = last.NumberOfCompletedSuboperations, last.NumberOfWarningSuboperations, last.NumberOfFailedSuboperations
    assert (last.Status, counts) == (0xB000, (3, 1, 2))
    uids = [r.AffectedSOPInstanceUID for r in receiver.stored]
    assert failed is not None
    assert list(failed.FailedSOPInstanceUIDList) == [uids[2], uids[4]]


def test_a_class_the_destination_does_not_take(door: OpenDoor, port: int) -> None:
    with Receiver(port, lambda _: 0, ("1.2.840.10008.5.1.4.1.1.4",)):
        assoc = associate(door, STUDY_MOVE)
        answers = list(assoc.send_c_move(identifier("STUDY", StudyInstanceUID=STUDY), "DEST", STUDY_MOVE))
        assoc.release()
    last, failed = answers[-1]
    assert (last.Status, last.NumberOfFailedSuboperations) == (0xA702, 6)
    assert failed is not None
    assert sorted(failed.FailedSOPInstanceUIDList) == sorted(FILES)


def test_cancel(door: OpenDoor, port: int) -> None:
    begun = threading.Event()

    def slowly(_: Any) -> int:
        begun.set()
        time.sleep(0.3)
        return 0

    with Receiver(port, slowly) as receiver:
        assoc = associate(door, STUDY_MOVE)
        answers = assoc.send_c_move(identifier("STUDY", StudyInstanceUID=STUDY), "DEST", STUDY_MOVE, msg_id=5)
        first = next(answers)
        assert begun.wait(60)
        assoc.send_c_cancel(5, query_model=STUDY_MOVE)
        last, _ = list(answers)[-1]
        assoc.release()
    assert first[0].Status == 0xFF00
    assert last.Status == 0xFE00
    assert last.NumberOfRemainingSuboperations == 6 - len(receiver.stored) > 0


def test_the_requester_leaves(door: OpenDoor, port: int) -> None:
    def slowly(_: Any) -> int:
        time.sleep(0.2)
        return 0

    with Receiver(port, slowly) as receiver:
        assoc = associate(door, STUDY_MOVE)
        next(assoc.send_c_move(identifier("STUDY", StudyInstanceUID=STUDY), "DEST", STUDY_MOVE))
        assoc.abort()
        time.sleep(1.0)
        assert len(receiver.stored) < 6


@pytest.mark.client("pynetdicom", feature="C-GET")
def test_c_get_with_contexts_that_take_some(door: OpenDoor) -> None:
    got: dict[str, bytes] = {}

    def store(event: Any) -> int:
        got[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0

    ae = AE("WORKSTATION")
    ae.add_requested_context(STUDY_GET)
    ae.add_requested_context(CT, [EXPLICIT])
    handlers: Any = [(evt.EVT_C_STORE, store)]
    roles: Any = [build_role(CT, scp_role=True)]
    assoc = ae.associate("127.0.0.1", door.port, ae_title="SIJIL", evt_handlers=handlers, ext_neg=roles)
    answers = list(assoc.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), STUDY_GET))
    assert answers[-1][0].Status == 0x0000
    assert got == datasets(FILES)
    # Without the role, nothing may be sent back: every sub-operation fails.
    assoc.release()
    assoc = ae.associate("127.0.0.1", door.port, ae_title="SIJIL")
    last, failed = list(assoc.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), STUDY_GET))[-1]
    assert failed is not None
    assert (last.Status, len(failed.FailedSOPInstanceUIDList)) == (0xA702, 6)
    assoc.release()


# ------------------------------------------------------------------------------------------------ who looked


def test_the_access_event_comes_first(port: int) -> None:
    own = MemoryArchive()
    own.store(list(FILES.values()))
    with open_door(own, [Ae("DEST", "127.0.0.1", port)], access_window_s=0.0) as door:
        own.journal.keeps = own.journal.acknowledges = False
        with Receiver(port, lambda _: 0) as receiver:
            own.journal.full = True
            assoc = associate(door, STUDY_MOVE)
            asked = identifier("STUDY", StudyInstanceUID=STUDY)
            (last, _) = list(assoc.send_c_move(asked, "DEST", STUDY_MOVE))[-1]
            assert (last.Status, receiver.stored) == (0xA701, [])
            own.journal.full, own.journal.keeps, own.journal.acknowledges = False, True, True
            (last, _) = list(assoc.send_c_move(asked, "DEST", STUDY_MOVE))[-1]
            assert (last.Status, len(receiver.stored)) == (0, 6)
            assoc.release()
    granted = own.journal.events(AccessGranted)[-1]
    assert (granted.actor, granted.action) == ("ae:WORKSTATION@127.0.0.1", "dicom-move")
    assert (granted.via, granted.address, granted.destination) == ("dimse", "127.0.0.1", "DEST")
    assert granted.study_uid == STUDY
    used = own.journal.events(AccessUsed)[-1]
    assert used.bytes == sum(len(dataset(f)) for f in FILES.values())


# ------------------------------------------------------------------------------------------------ pure


def test_places_are_bounded_for_each_destination() -> None:
    places = Places(8)
    with places.taken("A"), places.taken("A"):
        with pytest.raises(Refused), places.taken("A", 0.01):
            pass
        with places.taken("B", 0.01):
            pass
    with places.taken("A", 0.01):
        pass


def test_contexts_of_many_classes_are_spread_over_associations() -> None:
    rows: list[Any] = [{"sop_class": f"1.{n % 90}", "transfer_syntax": "1.9"} for n in range(200)]
    found = proposals(rows)
    assert [r for _, some in found for r in some] == rows
    for contexts, some in found:
        assert len(contexts) <= 128
        offered = {(c.abstract_syntax, c.transfer_syntaxes[0]) for c in contexts}
        assert all((r["sop_class"], s) in offered for r in some for s in ("1.9", EXPLICIT, IMPLICIT))


values = st.one_of(st.none(), st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3), st.sampled_from([STUDY]))
words = st.sampled_from(["QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID"])


@given(st.dictionaries(words, values), st.sampled_from(["", "PATIENT", "STUDY", "SERIES", "IMAGE"]))
def test_no_identifier_breaks_the_reader(asked: dict[str, Any], level: str) -> None:
    for levels in MOVE_MODELS.values():
        try:
            found = wanted({**asked, "QueryRetrieveLevel": level}, levels)
        except Invalid:
            continue
        assert found.level == level
        assert bool(found.studies) == (level != "PATIENT")


@given(st.lists(st.sampled_from([0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0xA700, 0xC123, 0x0122, 0x0110])))
def test_progress_adds_up(statuses: list[int]) -> None:
    progress = Progress(len(statuses))
    for n, status in enumerate(statuses):
        progress.done(str(n), status)
    assert progress.remaining == 0
    assert progress.completed + progress.warning + progress.failed == len(statuses)
    assert len(progress.failed_uids) == progress.failed
    assert (progress.status() == 0) == all(s == 0 for s in statuses)


def test_contexts_of_the_models() -> None:
    assert accept(STUDY_MOVE, [IMPLICIT, EXPLICIT]) == EXPLICIT
    assert accept(PATIENT_MOVE, [IMPLICIT]) == IMPLICIT
    assert accept(STUDY_GET, ["1.2.840.10008.1.2.2"]) is None
    assert accept(CT, [EXPLICIT]) is None


def test_implicit_and_back() -> None:
    file = part10("1.2.3")
    found = pydicom.dcmread(BytesIO(to_implicit(file)), force=True)
    assert found == pydicom.dcmread(BytesIO(file))


def test_corrections_are_in_what_leaves_and_the_rejected_does_not(tmp_path: Path) -> None:
    own = Corrected()
    own.store(list(FILES.values()))
    own.store(list(OTHER.values()))
    own.decide(type="correct", attributes={"StudyDescription": "CT of the chest"})
    own.decide("1.2.4", type="correct", attributes={"StudyDescription": "CT of the head"})
    own.decide("1.2.4", type="reassign", patient={"PatientID": "N-6"})
    port = free_port()
    with open_door(own, [Ae("DEST", "127.0.0.1", port)]) as door:
        with storescp(tmp_path / "moved", "+xa", port=port) as folder:
            assert door.run("movescu", "-S", "-aem", "DEST", *keys("STUDY", study="1.2.3\\1.2.4")).returncode == 0
            told = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, folder.iterdir())}
        assert {d.StudyDescription for u, d in told.items() if u in FILES} == {"CT of the chest"}
        assert (told["1.2.4.1.1"].StudyDescription, told["1.2.4.1.1"].PatientID) == ("CT of the head", "N-6")
        assert told["1.2.3.1.2"].PixelData == bytes([2]) * 32
        with storescp(tmp_path / "theirs", "+xa", port=port) as folder:
            assert door.run("movescu", "-P", "-aem", "DEST", *keys("PATIENT", patient="N-6")).returncode == 0
            assert list(received(folder)) == ["1.2.4.1.1"]
