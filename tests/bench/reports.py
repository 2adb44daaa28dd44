"""How soon a signed report is where people and the health record see it, and how many come through in a second.

The health record is a server of this process that answers transactions at once: what is measured is the archive's part
of the way. Every answer is checked before it is counted.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psutil

from infra.clock import uuid7
from infra.mllp import MllpClient
from schemas.hl7 import Field, joined, segment
from schemas.identity import national_id_check_digit
from tests.bench.clients import BOUNDARY, Latency
from tests.local_stack import LocalStack
from tests.unit.consumers.archive import part10

SIGNED = 40
SENDERS = 4
"""Connections that send at once."""
STUDIES = 8
"""That they are of: the record is told one thing of a study at a time."""
DRAIN_S = 60.0
"""Deliveries are counted for so long."""
WAIT_S = 300.0
FIRST13 = "2900101010127"
NATIONAL_ID = FIRST13 + national_id_check_digit(FIRST13)
ACCESSION = "BENCH-1"
FHIR = {"Content-Type": "application/fhir+json"}


@dataclass
class Record:
    """A health record: which reports have arrived, and when. While `away` it answers 503."""

    away: bool = False
    arrived: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        record = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told = {} if record.away else record.take(json.loads(body))
                answer = json.dumps(told).encode()
                self.send_response(503 if record.away else 200)
                self.send_header("Content-Type", "application/fhir+json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, bundle: dict[str, Any]) -> dict[str, Any]:
        """A transaction: all of it is taken."""
        now = time.perf_counter()
        for entry in bundle["entry"]:
            resource = entry["resource"]
            if resource["resourceType"] == "DiagnosticReport":
                ids = [i["value"] for i in resource["identifier"] if i["value"].startswith("urn:uuid:")]
                self.arrived.setdefault(ids[0].removeprefix("urn:uuid:"), now)
        taken = [{"response": {"status": "200 OK"}} for _ in bundle["entry"]]
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": taken}

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def measure(stack: LocalStack, record: Record, *, queued: int, messages: int) -> dict[str, Any]:
    """On a running stack whose EHR is `record`."""
    settings = stack.settings("api")
    added = stack.sijil("hl7-senders", "add", settings.site, "127.0.0.0/8")
    assert added.returncode == 0, added.stderr
    base = f"http://{settings.http_host}:{settings.http_port}"
    with httpx.Client(base_url=base, timeout=60) as client:
        studies = [_store(client, f"{ACCESSION}-{n}") for n in range(STUDIES)]
        visible, filed = _signed(client, record, studies[0])
    rates = {"reports signed per second": _rate(queued, lambda count: _queue(base, record, studies, count))}
    rates["deliveries per second"], memory = _drained(record, queued, stack.pids()["delivery"])
    site, port = settings.site, stack.settings("hl7").hl7_port
    rates["HL7 messages per second"] = asyncio.run(_results(settings.hl7_host, port, site, messages))
    return {
        "latency_ms": {"signed to visible by API": visible, "signed to the health record": filed},
        "delivery_mb": memory,
        "rates": {**rates, "queued": queued, "messages": messages, "senders": SENDERS},
    }


def _store(client: httpx.Client, accession: str) -> str:
    """One study of somebody with a national ID; its UID."""
    study = f"2.25.{uuid7().int}"
    file = part10(
        f"{study}.1.1",
        study=study,
        series=f"{study}.1",
        PatientID=NATIONAL_ID,
        PatientName="Bench^Karim",
        PatientBirthDate="19900101",
        PatientSex="M",
        AccessionNumber=accession,
    )
    head = b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'
    answer = client.post(
        "/dicom-web/studies",
        content=head + file + b"\r\n--" + BOUNDARY + b"--\r\n",
        headers={"Content-Type": kind, "Accept": "application/dicom+json"},
    )
    assert answer.status_code == 200, answer.text
    _until(lambda: bool((client.get(f"/studies/{study}").json()).get("completed")), "the study is complete")
    return study


def _document(study: str, number: str) -> bytes:
    return json.dumps(
        {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "identifier": [{"system": "urn:bench", "value": number}],
            "code": {"text": "CT chest"},
            "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}}],
            "conclusion": "أشعة مقطعية طبيعية على الصدر.",
        }
    ).encode()


def _sign(client: httpx.Client, study: str) -> str:
    answer = client.post("/reports", content=_document(study, str(uuid7())), headers=FHIR)
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"] == "final", answer.text
    return str(answer.json()["report_id"])


def _signed(client: httpx.Client, record: Record, study: str) -> tuple[Latency, Latency]:
    """From the moment at which it is sent: until a reader gets it, and until the record has it."""
    visible, filed = [], []
    for _ in range(SIGNED):
        started = time.perf_counter()
        report = _sign(client, study)
        while client.get(f"/reports/{report}").status_code != 200:
            time.sleep(0.005)
        visible.append(time.perf_counter() - started)
        _until(lambda report=report: report in record.arrived, "the record has it")  # type: ignore[misc]
        filed.append(record.arrived[report] - started)
    return Latency.of(visible), Latency.of(filed)


def _queue(base: str, record: Record, studies: Sequence[str], count: int) -> None:
    """So many signed while the record is away."""
    record.away = True

    def some(share: int) -> None:
        with httpx.Client(base_url=base, timeout=60) as client:
            for n in range(share):
                _sign(client, studies[n % len(studies)])

    with ThreadPoolExecutor(SENDERS) as threads:
        list(threads.map(some, _shares(count)))


def _drained(record: Record, count: int, pid: int) -> tuple[float, dict[str, float]]:
    """Deliveries a second once the record is back, from the first on, for DRAIN_S at most; resident MB of the process
    `pid` with all that is queued, and at most while it delivers, those it prints with included.
    """
    before = len(record.arrived)
    memory = {"queued": _resident_mb(pid), "delivering": 0.0}
    record.away = False
    _until(lambda: len(record.arrived) > before, "what is queued is delivered")
    first = time.perf_counter()
    while len(record.arrived) < before + count and time.perf_counter() < first + DRAIN_S:
        memory["delivering"] = max(memory["delivering"], _resident_mb(pid))
        time.sleep(0.5)
    times = sorted(record.arrived.values())[before:]
    return round((len(times) - 1) / max(times[-1] - times[0], 1e-9), 1), memory


def _resident_mb(pid: int) -> float:
    """Of a process and its children."""
    process = psutil.Process(pid)
    found = 0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found += one.memory_info().rss
    return round(found / 1e6, 1)


async def _results(host: str, port: int, site: str, count: int) -> float:
    """ORU^R01 a second, each acknowledged with AA before its connection sends the next."""

    async def some(sender: int, share: int) -> None:
        async with MllpClient(host, port) as client:
            for n in range(share):
                told = (await client.send(_oru(site, f"{sender}-{n}").encode())).decode()
                assert "MSA|AA|" in told, told

    started = time.perf_counter()
    await asyncio.gather(*(some(n, share) for n, share in enumerate(_shares(count))))
    return round(count / (time.perf_counter() - started), 1)


def _oru(site: str, number: str) -> str:
    header: list[Field] = ["RIS", site, "SIJIL", "MOH", "20260102110000+0200", "", ["ORU", "R01"], number, "P", "2.5"]
    order: list[Field] = ["1", "", number, ["CTC", "CT chest", "L"], *[""] * 13, f"{ACCESSION}-0", "", "", ""]
    order += ["20260102110000+0200", "", "CT", "F"]
    return joined(
        [
            segment("MSH", *header, "", "", "", "", "", "", "UNICODE UTF-8"),
            f"PID|1||{NATIONAL_ID}^^^NID^NI||Bench^Karim||19900101|M",
            segment("OBR", *order),
            segment("OBX", "1", "FT", ["59776-5", "Findings", "LN"], "", "سليم", "", "", "", "", "", "F"),
        ]
    )


def _shares(count: int) -> Sequence[int]:
    return [count // SENDERS + (n < count % SENDERS) for n in range(SENDERS)]


def _rate(count: int, work: Callable[[int], None]) -> float:
    started = time.perf_counter()
    work(count)
    return round(count / (time.perf_counter() - started), 1)


def _until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        with suppress(httpx.HTTPError):
            if done():
                return
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)
