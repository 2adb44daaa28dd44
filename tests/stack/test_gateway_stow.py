"""STOW-RS over real HTTP; what stands behind the door is in memory."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import psutil
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from producers.refusals import REFUSALS
from tests.stack.gateway_doors import Doors, open_doors
from tests.unit.producers.samples import CT, STUDY, file

B = "x-7"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={B}'


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    with open_doors(tmp_path / "home", monkeypatch) as both:
        yield both


def body(*files: bytes, kind: str = "application/dicom") -> bytes:
    parts = b"".join(f"--{B}\r\nContent-Type: {kind}\r\n\r\n".encode() + f + b"\r\n" for f in files)
    return parts + f"--{B}--\r\n".encode()


def post(doors: Doors, content: Any, path: str = "/studies", **headers: str) -> httpx.Response:
    given = {"Content-Type": MULTIPART, "Accept": "application/dicom+json", **headers}
    return httpx.post(doors.url + path, content=content, headers=given, timeout=60)


def stored(answer: httpx.Response) -> list[str]:
    return [i["00081155"]["Value"][0] for i in answer.json().get("00081199", {}).get("Value", [])]


def failed(answer: httpx.Response) -> list[tuple[str, int]]:
    known = answer.json().get("00081198", {}).get("Value", [])
    unknown = answer.json().get("0008119A", {}).get("Value", [])
    found = [(i["00081155"]["Value"][0], i["00081197"]["Value"][0]) for i in known]
    return found + [("", i["00081197"]["Value"][0]) for i in unknown]


def code(reason: str) -> int:
    return REFUSALS[reason].status


# ------------------------------------------------------------------------------------------------ what is stored


def test_all_stored_verbatim(doors: Doors) -> None:
    files = {f"1.2.{n}": file(f"1.2.{n}", pixels=os.urandom(1000 * n)) for n in range(1, 30)}
    answer = post(doors, body(*files.values()))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert stored(answer) == list(files)
    assert answer.json()["00081190"]["Value"] == [f"{doors.url}/studies/{STUDY}"]
    doors.until(lambda: doors.files() == files)
    (manifest,) = doors.manifests()
    assert manifest.pack.senders[0].door == "stow"


@pytest.mark.client("dicomweb-client", feature="STOW-RS")
def test_dicomweb_client(doors: Doors) -> None:
    client = DICOMwebClient(doors.url)
    data = pydicom.dcmread(BytesIO(file("1.2.1", pixels=bytes(64))))
    answer = client.store_instances([data])
    assert answer.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.1"
    doors.until(lambda: "1.2.1" in doors.files())


def test_a_single_instance_without_multipart(doors: Doors) -> None:
    answer = post(doors, file("1.2.1"), **{"Content-Type": "application/dicom"})
    assert (answer.status_code, stored(answer)) == (200, ["1.2.1"])
    doors.until(lambda: doors.files() == {"1.2.1": file("1.2.1")})


def test_chunked_in_pieces_of_all_sizes(doors: Doors) -> None:
    files = [file(f"1.2.{n}", pixels=os.urandom(3000)) for n in range(3)]
    whole = body(*files)

    def pieces() -> Iterator[bytes]:
        at, size = 0, 1
        while at < len(whole):
            yield whole[at : at + size]
            at, size = at + size, size * 3 % 1000 + 1

    answer = post(doors, pieces())
    assert (answer.status_code, stored(answer)) == (200, ["1.2.0", "1.2.1", "1.2.2"])
    doors.until(lambda: sorted(doors.files().values()) == sorted(files))


def test_the_studys_own_address(doors: Doors) -> None:
    answer = post(doors, body(file("1.2.1"), file("1.2.2", study="1.9")), f"/studies/{STUDY}")
    assert answer.status_code == 202
    assert stored(answer) == ["1.2.1"]
    assert failed(answer) == [("1.2.2", code("study-mismatch"))]


def test_leading_zeros_are_stored_and_marked(doors: Doors) -> None:
    assert post(doors, body(file("1.2.007"))).status_code == 200
    doors.until(lambda: bool(doors.manifests()))
    assert "uid-leading-zero" in doors.manifests()[0].instances[0].marks


def test_the_same_again(doors: Doors) -> None:
    for _ in range(2):
        assert post(doors, body(file("1.2.1"), file("1.2.1"))).status_code == 200
    doors.until(lambda: bool(doors.manifests()))
    assert sum(m.pack.instances + m.pack.repeats for m in doors.manifests()) <= 4
    assert set(doors.files()) == {"1.2.1"}


def test_two_contents_of_one_uid_are_both_kept(doors: Doors) -> None:
    one, two = file("1.2.1"), file("1.2.1", pixels=b"other ")
    assert post(doors, body(one, two)).status_code == 200
    doors.until(lambda: sorted(doors.files().values()) == sorted([one, two]))


def test_long_parts_go_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, body_buffer_mb=1, pack_own_mb=4) as doors:
        files = {f"1.2.{n}": file(f"1.2.{n}", pixels=os.urandom(n << 19)) for n in (1, 3, 5, 10)}
        answer = post(doors, body(*files.values()))
        assert (answer.status_code, stored(answer)) == (200, list(files))
        doors.until(lambda: doors.files() == files)
        assert doors.spool_files() == []
        assert sorted(m.pack.instances for m in doors.manifests())[0] == 1


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("cut", [10, 400])
def test_a_request_that_breaks_off_is_answered_by_what_was_kept(doors: Doors, cut: int) -> None:
    answer = post(doors, body(file("1.2.1"), file("1.2.2"), file("1.2.3", pixels=bytes(500)))[:-cut])
    assert answer.status_code == 202
    assert stored(answer) == ["1.2.1", "1.2.2"]
    assert failed(answer) == [("", code("request-broken-off"))]


def test_bad_instances_among_good_ones(doors: Doors) -> None:
    bad = [file("1.2.2", pixels=bytes(500))[:-100], b"no DICOM at all" * 30, file("1.2.3", study="")]
    answer = post(doors, body(file("1.2.1"), *bad, file("1.2.4")))
    assert answer.status_code == 202
    assert stored(answer) == ["1.2.1", "1.2.4"]
    expected = {("1.2.2", code("truncated")), ("", code("not-dicom")), ("1.2.3", code("uid-missing"))}
    assert set(failed(answer)) == expected
    doors.until(lambda: len(doors.rejected()) == 3)
    events = {e.reason: e for e in doors.rejected()}
    assert set(events) == {"truncated", "not-dicom", "uid-missing"}
    assert {doors.quarantined()[e.rejection_id] for e in events.values()} == set(bad)
    assert (events["truncated"].sop_uid, events["truncated"].sop_class) == ("1.2.2", CT)
    doors.until(lambda: set(doors.files()) == {"1.2.1", "1.2.4"})


def test_none_stored(doors: Doors) -> None:
    answer = post(doors, body(b"", b"x"))
    assert answer.status_code == 409
    assert stored(answer) == []


def test_a_part_of_another_type(doors: Doors) -> None:
    answer = post(doors, body(b"{}", kind="application/json"))
    assert answer.status_code == 409
    assert failed(answer) == [("", code("media-type"))]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("multipart/related; type=application/dicom+hdf; boundary=b", 415),
        ("multipart/form-data; boundary=b", 415),
        ("nonsense", 415),
        ("multipart/related; type=application/dicom", 400),
    ],
)
def test_requests_of_other_types(doors: Doors, content_type: str, status: int) -> None:
    answer = post(doors, b"x", **{"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "zstd"])
def test_requests_in_other_codings(doors: Doors, coding: str) -> None:
    assert post(doors, b"x", **{"Content-Encoding": coding}).status_code == 415


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/dicom+xml;q=0, text/html", 406),
        ("text/html", 406),
        ("application/dicom+xml", 200),
        ("*/*", 200),
        ("application/json", 200),
        ("a/b, application/*;q=0.1", 200),
    ],
)
def test_answers_of_other_types(doors: Doors, accept: str, status: int) -> None:
    assert post(doors, body(file("1.2.1")), Accept=accept).status_code == status


@pytest.mark.parametrize("content", [b"", b"no boundary", body(file("1.2.1"))[:-9], f"--{B}--\r\n".encode()])
def test_malformed_requests(doors: Doors, content: bytes) -> None:
    answer = post(doors, content)
    assert answer.status_code == 400
    assert answer.json()["reason"].startswith("multipart-")


def test_an_address_that_is_no_study(doors: Doors) -> None:
    assert post(doors, body(file("1.2.1")), "/studies/abc").status_code == 400


def test_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, spool_low_free_mb=1 << 40, spool_full_free_mb=0) as doors:
        answer = post(doors, body(file("1.2.1")))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        ready = httpx.get(f"http://127.0.0.1:{doors.http_port}/health/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"]["spool"] is False


def test_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Packs stay open: one that is published makes room.
    slow: dict[str, Any] = {"pack_idle_s": 60.0, "pack_release_s": 60.0}
    with open_doors(tmp_path, monkeypatch, spool_low_free_mb=0, spool_full_free_mb=0, spool_max_mb=1, **slow) as doors:
        big = [file(f"1.2.{n}", pixels=bytes(700_000)) for n in range(4)]
        statuses = [post(doors, body(b)).status_code for b in big]
        assert statuses[0] == 200
        assert 503 in statuses


# ------------------------------------------------------------------------------------------------ 100-continue


def exchange(doors: Doors, head: str, content: bytes) -> tuple[bytes, bytes]:
    """What comes before the body is sent, and what comes behind it."""
    with socket.create_connection(("127.0.0.1", doors.http_port), 5) as s:
        s.sendall(f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{head}\r\n".encode())
        first = s.recv(65536)
        if not first.startswith(b"HTTP/1.1 100"):
            return first, b""
        s.sendall(content)
        return first, s.recv(65536)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Type: text/html\r\n", b"415"),
        (f"Content-Type: {MULTIPART}\r\nContent-Encoding: br\r\n", b"415"),
        (f"Content-Type: {MULTIPART}\r\nAccept: text/html\r\n", b"406"),
        (f"Content-Type: {MULTIPART}\r\nContent-Length: 99999999999999\r\n", b"413"),
    ],
)
def test_a_refusal_comes_before_the_body_is_asked_for(doors: Doors, head: str, status: bytes) -> None:
    length = "" if "Content-Length" in head else "Content-Length: 5\r\n"
    first, _ = exchange(doors, head + length, b"")
    assert first.startswith(b"HTTP/1.1 " + status)


def test_a_wanted_body_is_asked_for(doors: Doors) -> None:
    whole = body(file("1.2.1"))
    first, answer = exchange(doors, f"Content-Type: {MULTIPART}\r\nContent-Length: {len(whole)}\r\n", whole)
    assert first.startswith(b"HTTP/1.1 100 Continue")
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_full_disk_is_told_before_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, spool_low_free_mb=1 << 40, spool_full_free_mb=0) as doors:
        first, _ = exchange(doors, f"Content-Type: {MULTIPART}\r\nContent-Length: 9\r\n", b"")
        assert first.startswith(b"HTTP/1.1 503")


# ------------------------------------------------------------------------------------------------ codings


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests(doors: Doors, coding: str, encode: Callable[[bytes], bytes]) -> None:
    files = {f"1.2.{n}": file(f"1.2.{n}", pixels=os.urandom(99_000)) for n in range(9)}
    answer = post(doors, encode(body(*files.values())), **{"Content-Encoding": coding})
    assert (answer.status_code, stored(answer)) == (200, list(files))
    doors.until(lambda: doors.files() == files)


def test_a_bomb_is_stopped(doors: Doors) -> None:
    bomb = gzip.compress(f"--{B}\r\n\r\n".encode() + bytes(200 << 20))
    answer = post(doors, bomb, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["reason"]) == (413, "content-coding-too-large")
    doors.until(lambda: doors.spool_files() == [])


def test_a_damaged_coding(doors: Doors) -> None:
    whole = gzip.compress(body(file("1.2.1")))
    assert post(doors, whole[:-20], **{"Content-Encoding": "gzip"}).status_code in (202, 400)
    assert post(doors, b"no gzip", **{"Content-Encoding": "gzip"}).status_code == 400


# ------------------------------------------------------------------------------------------------ bad behaviour


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, body_buffer_mb=1) as doors:
        s = socket.create_connection(("127.0.0.1", doors.http_port), 5)
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {MULTIPART}\r\n"
        head += "Content-Length: 99999999\r\n\r\n"
        s.sendall(head.encode() + body(file("1.2.1"))[:-9] + f"--{B}\r\n\r\n".encode() + bytes(3 << 20))
        doors.until(lambda: bool(doors.spool_files()))
        s.close()
        doors.until(lambda: doors.spool_files() == [])
        doors.until(lambda: set(doors.files()) == {"1.2.1"})  # it was complete; nobody was told so
        assert post(doors, body(file("1.2.2"))).status_code == 200


def test_many_clients_at_once(doors: Doors) -> None:
    answers: list[int] = []

    def client(n: int) -> None:
        for k in range(5):
            answers.append(
                post(doors, body(*(file(f"1.2.{n}.{k}.{i}", study=f"1.7.{n}") for i in range(4)))).status_code
            )

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [200] * 40
    doors.until(lambda: len(doors.files()) == 160)


def test_memory_does_not_grow_with_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 300 MB in pieces: the process's own memory stays where it was."""
    with open_doors(tmp_path, monkeypatch, pack_own_mb=100) as doors:
        post(doors, body(file("1.2.1")))
        pixels = bytes(1 << 20)
        whole = file("1.2.2", pixels=b"")
        head = whole[:-8] + b"OW\0\0" + (300 << 20).to_bytes(4, "little")

        def pieces() -> Iterator[bytes]:
            yield f"--{B}\r\n\r\n".encode() + head
            for _ in range(300):
                yield pixels
            yield f"\r\n--{B}--\r\n".encode()

        me = psutil.Process()
        before, peak, done = me.memory_full_info().uss, [0], threading.Event()

        def watch() -> None:
            while not done.is_set():
                peak[0] = max(peak[0], me.memory_full_info().uss)
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        answer = post(doors, pieces())
        done.set()
        watcher.join()
        assert (answer.status_code, stored(answer)) == (200, ["1.2.2"])
        assert peak[0] - before < 64 << 20
