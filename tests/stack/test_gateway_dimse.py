"""C-ECHO and C-STORE with DCMTK and pynetdicom against the real listener; what stands behind it is in memory."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from infra.ae_table import Ae
from producers.dicom.part10 import parse_file_meta
from producers.refusals import REFUSALS
from schemas.pack import Sender
from tests.archive import dcmtk
from tests.bench.corpus import make_ct
from tests.stack.gateway_doors import Doors, open_doors
from tests.stack.raw_scu import RawScu, command, pdata
from tests.unit.producers.samples import CT, EXPLICIT_LE, STUDY, dataset, file

IMPLICIT_LE = "1.2.840.10008.1.2"
JPEG = "1.2.840.10008.1.2.4.50"
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    with open_doors(tmp_path / "home", monkeypatch) as both:
        yield both


def run(program: str, doors: Doors, *arguments: str, called: str = "SIJIL") -> subprocess.CompletedProcess[str]:
    command = [dcmtk(program), "-v", "-aec", called, "127.0.0.1", str(doors.dicom_port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)


def associate(doors: Doors, *contexts: tuple[str, list[str]], title: str = "MODALITY1") -> Association:
    ae = AE(title)
    ae.requested_contexts = [build_context(a, [*t]) for a, t in contexts or [(CT, [EXPLICIT_LE])]]
    return ae.associate("127.0.0.1", doors.dicom_port, ae_title="SIJIL")


def store(assoc: Association, data: bytes, *, sop: str, sop_class: str = CT, context: int = 1) -> Any:
    """A C-STORE whose command says what we want, whatever the dataset says."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop
    request.DataSet = BytesIO(data)
    assoc._reactor_checkpoint.clear()
    while not assoc._is_paused:
        time.sleep(0.001)
    assoc.dimse.send_msg(request, context)
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    return answer


# ------------------------------------------------------------------------------------------------ DCMTK


@pytest.mark.client("dcmtk echoscu", feature="C-ECHO")
def test_echo(doors: Doors) -> None:
    assert run("echoscu", doors).returncode == 0


def test_a_wrong_called_title(doors: Doors) -> None:
    said = run("echoscu", doors, called="OTHER")
    assert said.returncode != 0
    assert "Called AE Title Not Recognized" in said.stderr + said.stdout


@pytest.mark.client("dcmtk storescu", feature="C-STORE")
def test_the_dataset_bytes_are_stored_verbatim(doors: Doors, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path / "ct", studies=1, slices=6, seed=5, rows=64)
    sent = run("storescu", doors, *(str(i.path) for i in study))
    assert sent.returncode == 0, sent.stderr
    doors.until(lambda: len(doors.files()) == 6)
    files = doors.files()
    for i in study:
        original, kept = i.path.read_bytes(), files[i.sop]
        meta = parse_file_meta(kept)
        assert kept[meta.dataset_offset :] == original[parse_file_meta(original).dataset_offset :]
        assert (meta.sop_instance_uid, meta.transfer_syntax, meta.source_ae_title) == (i.sop, EXPLICIT_LE, "STORESCU")
    (manifest,) = doors.manifests()
    assert manifest.pack.senders == (Sender(door="dimse", ae_title="STORESCU", address="127.0.0.1"),)
    assert manifest.pack.study_uid == study[0].study
    assert len(manifest.instances) == 6


def test_an_association_per_image_makes_one_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, pack_idle_s=5.0, pack_release_s=5.0) as doors:
        for n in range(4):
            assoc = associate(doors)
            assert store(assoc, dataset(f"1.2.{n}"), sop=f"1.2.{n}").Status == 0
            assoc.release()
        doors.until(lambda: bool(doors.manifests()))
        assert [m.pack.instances for m in doors.manifests()] == [4]


# ------------------------------------------------------------------------------------------------ negotiation


def test_contexts_by_our_table(doors: Doors) -> None:
    assoc = associate(
        doors,
        (CT, [IMPLICIT_LE, EXPLICIT_LE]),
        (CT, [JPEG, EXPLICIT_LE]),
        (CT, [IMPLICIT_LE]),
        (CT, ["1.2.840.10008.1.2.4.94"]),  # JPIP
        ("1.2.3.4.5.6", [EXPLICIT_LE]),  # private
        ("1.2.840.10008.5.1.4.1.2.2.1", [EXPLICIT_LE]),  # a query
        ("1.2.840.10008.1.1", [IMPLICIT_LE]),
    )
    found = {c.context_id: c.transfer_syntax[0] for c in assoc.accepted_contexts}
    assert found == {1: EXPLICIT_LE, 3: JPEG, 5: IMPLICIT_LE, 9: EXPLICIT_LE, 13: IMPLICIT_LE}
    assert {c.context_id: c.result for c in assoc.rejected_contexts} == {7: 4, 11: 3}
    assert assoc.send_c_echo().Status == 0
    assoc.release()
    assert assoc.is_released


def test_a_private_sop_class_is_stored(doors: Doors) -> None:
    assoc = associate(doors, ("1.2.3.4.5.6", [EXPLICIT_LE]))
    assert store(assoc, dataset("1.2.7", sop_class="1.2.3.4.5.6"), sop="1.2.7", sop_class="1.2.3.4.5.6").Status == 0
    assoc.release()
    doors.until(lambda: "1.2.7" in doors.files())


def test_who_may_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [Ae("MODALITY1", "127.0.0.1", 0, site="HOSP7", issuer="HOSP7-MRN"), Ae("FAR", "10.0.0.1", 0)]
    with open_doors(tmp_path, monkeypatch, table) as doors:
        for title in ("FAR", "NOBODY"):
            assert associate(doors, title=title).is_rejected
        assoc = associate(doors)
        assert store(assoc, dataset("1.2.8"), sop="1.2.8").Status == 0
        assoc.release()
        doors.until(lambda: bool(doors.manifests()))
        (manifest,) = doors.manifests()
        assert (manifest.pack.site, manifest.pack.issuer) == ("HOSP7", "HOSP7-MRN")


def rejection(assoc: Association) -> tuple[int | None, ...]:
    primitive = assoc.acceptor.primitive
    assert assoc.is_rejected
    assert primitive is not None
    return primitive.result, primitive.result_source, primitive.diagnostic


def test_the_first_watermark_rejects_associations_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, spool_low_free_mb=1 << 40, spool_full_free_mb=0) as doors:
        assert rejection(associate(doors)) == (2, 3, 2)


def test_associations_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, max_associations=2) as doors:
        some = [associate(doors) for _ in range(3)]
        assert [a.is_established for a in some] == [True, True, False]
        assert rejection(some[2]) == (2, 3, 2)
        some[0].release()
        doors.until(lambda: len(doors.listener.associations()) == 1)
        again = associate(doors)
        assert again.is_established
        for assoc in (some[1], again):
            assoc.release()


# ------------------------------------------------------------------------------------------------ statuses


def test_the_second_watermark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, spool_low_free_mb=0, spool_full_free_mb=0, spool_max_mb=1) as doors:
        assoc = associate(doors)
        # room() looks at free < low: with a low mark of 0 nothing is refused until the limit itself is passed.
        for n in range(4):
            answer = store(assoc, dataset(f"1.2.{n}", pixels=bytes(600_000)), sop=f"1.2.{n}")
            if answer.Status:
                break
        assert answer.Status == 0xA700
        assoc.release()


@pytest.mark.parametrize(
    ("data", "sop", "reason"),
    [
        (dataset("1.2.1", pixels=bytes(1000))[:-10], "1.2.1", "truncated"),
        (b"this is not DICOM" * 50, "1.2.1", None),
        (dataset("1.2.1"), "1.2.9", "sop-instance-mismatch"),
        (dataset("1.2.1", sop_class=CT + ".1"), "1.2.1", "sop-class-mismatch"),
        (dataset("1.2.1", study=""), "1.2.1", "uid-missing"),
        (dataset("1.2.1", series="x"), "1.2.1", "uid-invalid"),
    ],
)
def test_bad_input(doors: Doors, data: bytes, sop: str, reason: str | None) -> None:
    assoc = associate(doors)
    answer = store(assoc, data, sop=sop)
    doors.until(lambda: bool(doors.rejected()))
    (event,) = doors.rejected()
    if reason is not None:
        assert event.reason == reason
    assert answer.Status == REFUSALS[event.reason].status
    assert (event.door, event.calling_ae, event.site) == ("dimse", "MODALITY1", "LOCAL")
    assert doors.quarantined()[event.rejection_id].endswith(data)
    # The association goes on, and so do good instances.
    assert store(assoc, dataset("1.2.5"), sop="1.2.5").Status == 0
    assoc.release()
    doors.until(lambda: set(doors.files()) == {"1.2.5"})


@pytest.mark.client("pynetdicom", feature="C-STORE")
def test_a_repeated_instance_is_acknowledged_and_stored_once(doors: Doors) -> None:
    assoc = associate(doors)
    for _ in range(3):
        assert store(assoc, dataset("1.2.5"), sop="1.2.5").Status == 0
    assoc.release()
    doors.until(lambda: bool(doors.manifests()))
    (manifest,) = doors.manifests()
    assert (manifest.pack.instances, manifest.pack.repeats) == (1, 2)


def test_long_instances_go_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, body_buffer_mb=1, pack_own_mb=3) as doors:
        assoc = associate(doors)
        sent = {f"1.2.{n}": dataset(f"1.2.{n}", pixels=os.urandom(n << 20)) for n in (1, 2, 4)}
        for sop, data in sent.items():
            assert store(assoc, data, sop=sop).Status == 0
        assoc.release()
        doors.until(lambda: len(doors.files()) == 3)
        for sop, kept in doors.files().items():
            assert kept[parse_file_meta(kept).dataset_offset :] == sent[sop]
        assert len(doors.manifests()) == 2  # the longest is a pack of its own
        assert doors.spool_files() == []


# ------------------------------------------------------------------------------------------------ bad behaviour


def test_fragments_of_every_size_in_one_pdu_and_in_many(doors: Doors) -> None:
    data = dataset("1.2.5", pixels=os.urandom(5000))
    with RawScu(doors.dicom_port) as scu:
        parts = [b"\x00" + data[i : i + 997] for i in range(0, len(data), 997)]
        parts[-1] = b"\x02" + parts[-1][1:]
        scu.socket.sendall(pdata(command("1.2.5"), *parts[:3]) + b"".join(pdata(p) for p in parts[3:]))
        assert scu.status() == 0
        # An empty last fragment ends a dataset too.
        other = dataset("1.2.6")
        scu.socket.sendall(pdata(command("1.2.6")) + pdata(b"\x00" + other) + pdata(b"\x02"))
        assert scu.status() == 0
    doors.until(lambda: set(doors.files()) == {"1.2.5", "1.2.6"})
    kept = doors.files()["1.2.5"]
    assert kept[parse_file_meta(kept).dataset_offset :] == data


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BBI", 4, 0, 3) + b"abc",  # no room for a value's head
        pdata(b"\x03" + b"no command at all"),
        pdata(command("1.2.5"), context=9),  # a context that was not accepted
        pdata(command("1.2.5"), command("1.2.5")),  # a command inside a dataset
        struct.pack(">BBIIBB", 4, 0, 6, 1 << 30, 1, 0),  # a value longer than its PDU
        struct.pack(">BBI", 1, 0, 1 << 30),  # an associate request of a gigabyte
        struct.pack(">BBI", 9, 0, 0),
    ],
)
def test_what_breaks_the_protocol_is_aborted_and_hurts_nobody(doors: Doors, nonsense: bytes) -> None:
    with RawScu(doors.dicom_port) as scu:
        scu.socket.sendall(nonsense)
        scu.socket.settimeout(5)
        assert scu.socket.recv(65536)[:1] in (b"\x07", b"")
    assert run("echoscu", doors).returncode == 0
    doors.until(lambda: doors.listener.associations() == [])


def test_an_association_cut_inside_an_instance_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, body_buffer_mb=1) as doors:
        with RawScu(doors.dicom_port) as scu:
            scu.socket.sendall(pdata(command("1.2.5")) + pdata(b"\x00" + bytes(3 << 20)))
            doors.until(lambda: bool(doors.spool_files()))
        doors.until(lambda: doors.listener.associations() == [] and doors.spool_files() == [])
        assert doors.rejected() == []
        assert run("echoscu", doors).returncode == 0


def test_a_peer_that_aborts(doors: Doors) -> None:
    assoc = associate(doors)
    assert store(assoc, dataset("1.2.5"), sop="1.2.5").Status == 0
    assoc.abort()
    doors.until(lambda: doors.listener.associations() == [] and set(doors.files()) == {"1.2.5"})


def test_files_and_datasets_of_one_study_are_the_same_instance(doors: Doors) -> None:
    """What C-STORE stored and what a file has are one dataset: the checksum does not see how it came."""
    assoc = associate(doors)
    assert store(assoc, dataset("1.2.5"), sop="1.2.5").Status == 0
    assoc.release()
    doors.until(lambda: bool(doors.manifests()))
    offset = parse_file_meta(file("1.2.5")).dataset_offset
    assert doors.manifests()[0].instances[0].sha256 == hashlib.sha256(file("1.2.5")[offset:]).hexdigest()
    assert doors.manifests()[0].instances[0].study_uid == STUDY
