"""Abuse at full size: `python -m tests.bench.abuse [NAME …]`. Every outcome is checked; what is printed are figures.

    instances    a study of 20,000 instances: stored, counted, its metadata, all of it retrieved
    requests     10,000 requests of one instance each, all of one study, eight at once
    multiframe   one instance of 4 GB: stored in one request, its last frame read
    slices       4 GB as 8,192 slices in one request

It starts a whole archive of its own on free ports, with fresh data, and ends it. Some 15 GB of disk are used.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.archive import Archive, wait_until
from tests.local_stack import LocalStack
from tests.unit.producers.samples import element, file

MB = 1 << 20
ROOT = "2.25.2718281828"
SERIES = 5
WAIT_S = 400.0
PART = b"\r\n--B\r\nContent-Type: application/dicom\r\n\r\n"
END = b"\r\n--B--\r\n"
KIND = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'}


@dataclass
class Watched:
    """Resident memory of the process that answers HTTP, MB."""

    before: int
    peak: int = 0


@contextmanager
def memory(archive: Archive) -> Iterator[Watched]:
    """Looked at ten times a second while the block runs."""
    process = psutil.Process(archive.parts()["api"].pid)
    found = Watched(process.memory_info().rss // MB)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            found.peak = max(found.peak, process.memory_info().rss // MB)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def say(name: str, **figures: object) -> None:
    """A line of figures."""
    print(f"{name:12}", *(f"{k.replace('_', ' ')} {v}" for k, v in figures.items()), sep="  ", flush=True)  # noqa: T201


def connection(archive: Archive) -> http.client.HTTPConnection:
    """To the HTTP door."""
    return http.client.HTTPConnection(archive.settings.http_host, archive.settings.http_port, timeout=600)


def post(http_: http.client.HTTPConnection, body: bytes | Iterator[bytes]) -> Any:
    """The JSON of a STOW-RS answer, which must be 200."""
    http_.request("POST", "/dicom-web/studies", body=body, headers=KIND, encode_chunked=not isinstance(body, bytes))
    answer = http_.getresponse()
    text = answer.read()
    assert answer.status == 200, f"{answer.status} {text[:300]!r}"
    return json.loads(text)


def searchable(archive: Archive, study: str, count: int) -> float:
    """Seconds until the study shows so many instances."""
    started = time.perf_counter()
    wait_until(lambda: archive.instance_count(study) == count, WAIT_S, f"{count} instances are searchable")
    return time.perf_counter() - started


def instances(archive: Archive) -> None:
    """A study of 20,000 instances."""
    count, at_once, study = 20_000, 1000, f"{ROOT}.1"
    sops = [f"{study}.{n % SERIES}.{n}" for n in range(count)]
    http_ = connection(archive)
    with memory(archive) as rss:
        started = time.perf_counter()
        for first in range(0, count, at_once):
            parts = (file(s, study=study, series=s.rpartition(".")[0]) for s in sops[first : first + at_once])
            answer = post(http_, b"".join(PART + p for p in parts) + END)
            assert len(answer["00081199"]["Value"]) == at_once
        stored = time.perf_counter() - started
        seen = searchable(archive, study, count)
        row = archive.study(study)
        assert row is not None
        assert row["00201206"]["Value"] == [SERIES]
        assert row["00080061"]["Value"] == ["CT"]
        started = time.perf_counter()
        headers = archive.json(f"/dicom-web/studies/{study}/metadata")
        metadata = time.perf_counter() - started
        assert sorted(h["00080018"]["Value"][0] for h in headers) == sorted(sops)
        series = f"{study}.0"
        found = archive.json(f"/dicom-web/studies/{study}/series/{series}/instances?limit=1000&offset=3500")
        assert len(found) == count // SERIES - 3500
        started = time.perf_counter()
        kind = 'multipart/related; type="application/dicom"'
        http_.request("GET", f"/dicom-web/studies/{study}", headers={"Accept": kind})
        whole = http_.getresponse()
        got, size, rest = 0, 0, b""
        while piece := whole.read(MB):
            size += len(piece)
            text = rest + piece
            got += text.count(b"DICM\x02\x00\x00\x00")
            rest = text[-7:]  # shorter than what is counted: nothing is counted twice
        retrieved = time.perf_counter() - started
        assert (whole.status, got) == (200, count)
    say(
        "instances",
        stored_per_s=round(count / stored),
        searchable_after_s=round(seen, 1),
        metadata_s=round(metadata, 1),
        retrieve_s=round(retrieved, 1),
        MB=size // MB,
        rss_MB=f"{rss.before} → {rss.peak}",
    )


def requests(archive: Archive) -> None:
    """10,000 requests of one instance each."""
    count, senders, study = 10_000, 8, f"{ROOT}.2"
    local = threading.local()

    def send(n: int) -> None:
        if not hasattr(local, "http"):
            local.http = connection(archive)
        post(local.http, PART + file(f"{study}.1.{n}", study=study, series=f"{study}.1") + END)

    with memory(archive) as rss:
        started = time.perf_counter()
        with ThreadPoolExecutor(senders) as pool:
            list(pool.map(send, range(count)))
        stored = time.perf_counter() - started
        seen = searchable(archive, study, count)
        headers = archive.json(f"/dicom-web/studies/{study}/series/{study}.1/metadata")
        assert len({h["00080018"]["Value"][0] for h in headers}) == len(headers) == count
    rss_ = f"{rss.before} → {rss.peak}"
    say("requests", per_s=round(count / stored), searchable_after_s=round(seen, 1), rss_MB=rss_)


def multiframe(archive: Archive) -> None:
    """One instance of 4 GB in 8,190 frames: OW with a length that just fits into 32 bits."""
    study, frames, frame_bytes = f"{ROOT}.3", 8190, 512 * 512 * 2
    small = file(f"{study}.1.1", study=study, series=f"{study}.1", pixels=b"")
    head = small[: small.index(b"\xe0\x7f\x10\x00OW")]
    image = b"".join(
        (
            element(0x0028, 0x0002, "US", (1).to_bytes(2, "little")),
            element(0x0028, 0x0004, "CS", b"MONOCHROME2"),
            element(0x0028, 0x0008, "IS", str(frames).encode()),
            *(
                element(0x0028, e, "US", v.to_bytes(2, "little"))
                for e, v in ((0x10, 512), (0x11, 512), (0x100, 16), (0x101, 16), (0x102, 15), (0x103, 0))
            ),
        )
    )

    def frame(n: int) -> bytes:
        return hashlib.sha256(str(n).encode()).digest() * (frame_bytes // 32)

    def body() -> Iterator[bytes]:
        yield PART + head + image + b"\xe0\x7f\x10\x00OW\0\0" + (frames * frame_bytes).to_bytes(4, "little")
        for n in range(frames):
            yield frame(n)
        yield END

    with memory(archive) as rss:
        started = time.perf_counter()
        post(connection(archive), body())
        stored = time.perf_counter() - started
        seen = searchable(archive, study, 1)
        wait_until(archive.drained, WAIT_S, "it is in S3")
        instance = f"/dicom-web/studies/{study}/series/{study}.1/instances/{study}.1.1"
        accept = "application/octet-stream"
        took = []
        for n in (frames, 1, frames // 2):
            started = time.perf_counter()
            got = archive.get(f"{instance}/frames/{n}", accept)
            took.append(time.perf_counter() - started)
            assert got.status_code == 200, got.text[:300]
            assert got.content == frame(n - 1)
    say(
        "multiframe",
        MB_per_s=round(frames * frame_bytes / MB / stored),
        searchable_after_s=round(seen, 1),
        frame_ms=round(1000 * min(took)),
        rss_MB=f"{rss.before} → {rss.peak}",
    )


def slices(archive: Archive) -> None:
    """4 GB as 8,192 slices in one request."""
    study, count, size = f"{ROOT}.4", 8192, 512 * 512 * 2
    pixels = hashlib.sha256(b"4").digest() * (size // 32)

    def body() -> Iterator[bytes]:
        for n in range(count):
            yield PART + file(f"{study}.1.{n}", study=study, series=f"{study}.1", pixels=pixels)
        yield END

    with memory(archive) as rss:
        started = time.perf_counter()
        answer = post(connection(archive), body())
        stored = time.perf_counter() - started
        assert len(answer["00081199"]["Value"]) == count
        seen = searchable(archive, study, count)
    rss_ = f"{rss.before} → {rss.peak}"
    say("slices", MB_per_s=round(count * size / MB / stored), searchable_after_s=round(seen, 1), rss_MB=rss_)


KINDS: dict[str, Callable[[Archive], None]] = {f.__name__: f for f in (instances, requests, multiframe, slices)}


def main() -> None:
    """Start, abuse, end."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.abuse", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(KINDS))
    names: list[str] = parser.parse_args().names or list(KINDS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the archive is ended, and its disk given back
    folder = Path(tempfile.mkdtemp(prefix="sijil-abuse-"))
    stack = LocalStack.at(folder / ".sijil", quiet_s=5)
    try:
        stack.start()
        for name in names:
            KINDS[name](Archive(stack.settings("operator")))
    finally:
        stack.remove()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
