"""What the benchmark sends and asks, as plain clients of the doors; every answer is checked before it is counted."""

from __future__ import annotations

import http.client
import json
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.bench.corpus import Instance

STORESCU = "/usr/bin/storescu"
PER_REQUEST = 10
BOUNDARY = b"sijilbench"


@dataclass(frozen=True)
class Doors:
    """Where the archive is."""

    base: str
    dicom_host: str
    dicom_port: int
    ae_title: str


@dataclass(frozen=True)
class Latency:
    """Milliseconds over `n` requests."""

    n: int
    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """From durations in seconds."""
        ordered = sorted(s * 1000 for s in seconds)
        return cls(
            len(ordered), round(statistics.median(ordered), 2), round(ordered[int(0.95 * (len(ordered) - 1))], 2)
        )


@dataclass(frozen=True)
class Ingest:
    """One ingest run."""

    door: str
    encoding: str
    senders: int
    instances: int
    seconds: float
    megabytes: float
    visible: Latency
    """From a study's last acknowledgement to its full count in QIDO-RS."""


class Http:
    """One kept-alive connection."""

    def __init__(self, base: str) -> None:
        url = urlsplit(base)
        self._conn = http.client.HTTPConnection(url.hostname or "", url.port, timeout=120)

    def get(self, path: str, accept: str, **headers: str) -> bytes:
        """The body of a 200, empty for a 204; anything else is an error."""
        self._conn.request("GET", path, headers={"Accept": accept, **headers})
        answer = self._conn.getresponse()
        body = answer.read()
        if answer.status not in (200, 204):
            raise RuntimeError(f"GET answered {answer.status}")
        return body

    def post(self, path: str, body: bytes, content_type: str) -> Any:
        """The JSON of a 200; anything else is an error."""
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        self._conn.request("POST", path, body=body, headers=headers)
        answer = self._conn.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"POST answered {answer.status}: {text[:200]!r}")
        return json.loads(text)


def stow(http_: Http, study: Sequence[Instance]) -> None:
    """Send a study by STOW-RS, PER_REQUEST instances a request."""
    for at in range(0, len(study), PER_REQUEST):
        batch = study[at : at + PER_REQUEST]
        part = b"\r\n--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(part + i.path.read_bytes() for i in batch) + b"\r\n--" + BOUNDARY + b"--\r\n"
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'
        answer = http_.post("/dicom-web/studies", body, kind)
        if len(answer["00081199"]["Value"]) != len(batch):
            raise RuntimeError("a STOW-RS request of good instances was not stored whole")


def storescu(doors: Doors, study: Sequence[Instance]) -> None:
    """Send a study by DCMTK's storescu, which ends with 0 only if each was acknowledged."""
    if shutil.which(STORESCU) is None:
        raise RuntimeError("storescu is not installed: apt-get install dcmtk")
    files = [str(i.path) for i in study]
    command = [STORESCU, "-aec", doors.ae_title, doors.dicom_host, str(doors.dicom_port), *files]
    subprocess.run(command, check=True, capture_output=True, env={"TCP_NODELAY": "1"}, timeout=600)


def ingest(doors: Doors, door: str, encoding: str, senders: int, studies: Sequence[Sequence[Instance]]) -> Ingest:
    """Send studies of an encoding with a number of senders at once, and watch each become queryable."""
    visible: list[float] = []
    local = threading.local()

    def connection() -> Http:
        if not hasattr(local, "http"):
            local.http = Http(doors.base)
        return local.http  # type: ignore[no-any-return]

    def send(study: Sequence[Instance]) -> float:
        if door == "STOW-RS":
            stow(connection(), study)
        else:
            storescu(doors, study)
        return time.perf_counter()

    def watch(study: Sequence[Instance], acknowledged: float) -> None:
        http_ = Http(doors.base)
        while _count(http_, study[0].study) != len(study):
            if time.perf_counter() - acknowledged > 60:
                raise RuntimeError("a study did not become queryable within 60 s")
            time.sleep(0.02)
        visible.append(time.perf_counter() - acknowledged)

    started = time.perf_counter()
    with ThreadPoolExecutor(senders) as pool, ThreadPoolExecutor(4) as watchers:
        sent = [(study, pool.submit(send, study)) for study in studies]
        watches = []
        for study, future in sent:
            watches.append(watchers.submit(watch, study, future.result()))
        seconds = max(f.result() for _, f in sent) - started
        for w in watches:
            w.result()
    count = sum(map(len, studies))
    size = sum(i.path.stat().st_size for s in studies for i in s)
    return Ingest(door, encoding, senders, count, round(seconds, 2), round(size / 1e6, 1), Latency.of(visible))


def _count(http_: Http, study: str) -> int:
    body = http_.get(f"/dicom-web/studies?StudyInstanceUID={study}", "application/dicom+json")
    rows = json.loads(body) if body else []
    return int(rows[0]["00201208"]["Value"][0]) if rows else 0


def latency(ask: Callable[[Http], object], base: str, n: int) -> Latency:
    """Of `n` requests one after the other over one connection, after ten that are not counted."""
    http_ = Http(base)
    took = []
    for i in range(n + 10):
        started = time.perf_counter()
        ask(http_)
        if i >= 10:
            took.append(time.perf_counter() - started)
    return Latency.of(took)


def questions(study: Sequence[Instance]) -> dict[str, tuple[Callable[[Http], object], int]]:
    """Name → (request, how often), of the tables and headers."""
    first = study[0]
    dicomweb = f"/dicom-web/studies/{first.study}"
    json_ = "application/dicom+json"

    def rows(path: str, least: int) -> Callable[[Http], object]:
        def ask(h: Http) -> object:
            found = json.loads(h.get(path, json_) or b"[]")
            if len(found) < least:
                raise RuntimeError(f"expected at least {least} rows, found {len(found)}")
            return found

        return ask

    return {
        "QIDO-RS study by UID": (rows(f"/dicom-web/studies?StudyInstanceUID={first.study}", 1), 200),
        "QIDO-RS by PatientName prefix": (rows("/dicom-web/studies?PatientName=bench*&limit=25", 1), 100),
        "QIDO-RS newest 25": (rows("/dicom-web/studies?limit=25", 1), 100),
        "QIDO-RS instances of series": (rows(f"{dicomweb}/series/{first.series}/instances?limit=1000", len(study)), 50),
        f"WADO-RS metadata of {len(study)} instances": (
            rows(f"{dicomweb}/series/{first.series}/metadata", len(study)),
            50,
        ),
    }


def retrieves(study: Sequence[Instance]) -> dict[str, tuple[Callable[[Http], object], int]]:
    """Name → (request, how often), of the bytes of a study."""
    first = study[0]
    series = f"/dicom-web/studies/{first.study}/series/{first.series}"
    instance = f"{series}/instances/{first.sop}"
    multipart = 'multipart/related; type="application/dicom"'
    size = first.path.stat().st_size

    def body(path: str, least: int, accept: str = multipart) -> Callable[[Http], object]:
        def ask(h: Http) -> object:
            got = h.get(path, accept)
            if len(got) < least:
                raise RuntimeError(f"expected at least {least} bytes, got {len(got)}")
            return got

        return ask

    return {
        "WADO-RS instance": (body(instance, size - 2000), 200),
        "WADO-RS …/original": (body(f"{instance}/original", size), 200),
        "WADO-RS frame 1": (
            body(f"{instance}/frames/1", 512 * 512 * 2, 'multipart/related; type="application/octet-stream"'),
            200,
        ),
        f"WADO-RS series of {len(study)} instances": (body(series, (size - 2000) * len(study)), 10),
    }
