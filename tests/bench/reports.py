"""How soon a signed report is where people and the health record see it, and how many come through in a second.

The health record is a server of this process that answers transactions at once: what is measured is the archive's part
of the way. Every answer is checked before it is counted. CPU is that of the process named and its children, so it says
something on a busy machine, too.
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
from itertools import cycle, islice
from typing import Any, TypeVar

import httpx
import psutil
from msgspec import structs

from infra.chain import ChainedLog
from infra.clock import uuid7
from infra.kafka import KafkaLog
from infra.mllp import MllpClient
from infra.stack import status
from schemas.envelope import decode
from schemas.events import ReportIssued
from schemas.hl7 import Field, joined, segment
from schemas.identity import national_id_check_digit
from schemas.topics import topic_of
from tests.bench.clients import BOUNDARY, Latency
from tests.local_stack import LocalStack, superuser
from tests.unit.consumers.archive import part10

SIGNED = 40
"""One after the other; as many by several senders."""
SENDERS = 4
"""Connections that send at once."""
STUDIES = 64
"""That they are of: the record is told one thing of a study at a time."""
DRAIN_S = 90.0
"""Deliveries are counted for so long."""
WAIT_S = 300.0
FIRST13 = "2900101010127"
NATIONAL_ID = FIRST13 + national_id_check_digit(FIRST13)
ACCESSION = "BENCH-1"
FHIR = {"Content-Type": "application/fhir+json"}
T = TypeVar("T")


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
                with suppress(ConnectionError):  # who asked has ended with its archive
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
        for study in studies:
            _until(lambda study=study: _complete(client, study), "the study is complete")  # type: ignore[misc]
        visible, filed = _signed(client, record, studies[0])
    pids = stack.pids()
    signed, at_once = _rate(SIGNED * SENDERS, lambda count: _sign_some(base, studies, count))
    _until(lambda: len(record.arrived) == SIGNED + len(signed), "the record has all that was signed")
    record.away = True  # what is delivered meanwhile would be measured with the messages
    site, port, hl7 = settings.site, stack.settings("hl7").hl7_port, Used(pids["hl7"])
    _, results = _rate(messages, lambda count: asyncio.run(_results(settings.hl7_host, port, site, count)))
    cpu_ms = hl7.cpu_ms(messages)
    _queue(stack, signed, queued)
    _until(lambda: _owed(stack) >= queued + messages and _lag(stack) == 0, "all is owed, and in the read models")
    delivered, delivery = _drained(stack, record, queued + messages, pids["delivery"])
    return {
        "latency_ms": {"signed to visible by API": visible, "signed to the health record": filed},
        "rates": {
            "reports signed per second": at_once,
            "deliveries per second": delivered,
            "HL7 messages per second": results,
            "queued": queued + messages,
            "messages": messages,
            "senders": SENDERS,
        },
        "delivery": delivery,
        "hl7": {"cpu_ms_a_message": cpu_ms},
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
    return study


def _complete(client: httpx.Client, study: str) -> bool:
    return bool(client.get(f"/studies/{study}").json().get("completed"))


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


def _sign_some(base: str, studies: Sequence[str], count: int) -> list[str]:
    """So many signed by SENDERS at once; their ids."""

    def some(share: int) -> list[str]:
        with httpx.Client(base_url=base, timeout=60) as client:
            return [_sign(client, studies[n % len(studies)]) for n in range(share)]

    with ThreadPoolExecutor(SENDERS) as threads:
        return [id for ids in threads.map(some, _shares(count)) for id in ids]


def _queue(stack: LocalStack, signed: Sequence[str], count: int) -> None:
    """So many reports issued: copies of the events of those `signed`, under ids of their own; to sign 10,000 would take
    longer than all else here.
    """
    settings = superuser(stack.settings("admin"))
    topic, wanted = topic_of(ReportIssued), set(signed)
    log = KafkaLog(settings)
    chain = ChainedLog(log, settings.home / "bench-chain", "/bench/LOCAL/3", backlog_max=2 * count, anchors=None)
    try:
        records = [decode(topic, r.key, r.headers, r.value) for r in log.read(topic, {}, log.ends(topic)) if r.key]
        issued = [r.event for r in records if isinstance(r.event, ReportIssued) and r.event.report_id in wanted]
        assert len(issued) == len(wanted), "each was signed once"
        copies = (structs.replace(e, report_id=str(uuid7())) for e in islice(cycle(issued), count))
        for publication in [chain.publish(event) for event in copies]:
            publication.acknowledged.result(WAIT_S)
    finally:
        chain.close(30)
        log.close()


def _owed(stack: LocalStack) -> int:
    settings = stack.settings("delivery")
    ready = httpx.get(f"http://{settings.health_host}:{settings.delivery_health_port}/health/ready", timeout=10)
    return int(ready.json()["deliveries_open"])


def _lag(stack: LocalStack) -> int:
    return sum(part.lag or 0 for part in status.collect(stack.settings("admin")))


def _drained(stack: LocalStack, record: Record, count: int, pid: int) -> tuple[float, dict[str, float]]:
    """Deliveries a second once the record is back, from the first on, for DRAIN_S at most. And of the process `pid` and
    those it prints with: resident MB with all that is queued, and at most while it delivers; CPU ms a delivery.
    """
    before = len(record.arrived)
    used = Used(pid)
    found = {"queued_mb": used.resident_mb(), "delivering_mb": 0.0}
    record.away = False
    again = stack.sijil("deliveries", "again", "ehr")  # it would be asked whether it is back only once a minute
    assert again.returncode == 0, again.stderr
    _until(lambda: len(record.arrived) > before, "what is queued is delivered")
    first, used = time.perf_counter(), Used(pid)
    begun = len(record.arrived)
    while len(record.arrived) < before + count and time.perf_counter() < first + DRAIN_S:
        found["delivering_mb"] = max(found["delivering_mb"], used.resident_mb())
        time.sleep(0.5)
    found["cpu_ms_a_delivery"] = used.cpu_ms(len(record.arrived) - begun)
    times = sorted(record.arrived.values())[before:]
    return round((len(times) - 1) / max(times[-1] - times[0], 1e-9), 1), found


class Used:
    """What a process and its children use."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._cpu_s()

    def _cpu_s(self) -> float:
        """Of those that live, and of those that were waited for."""
        found = sum(self._process.cpu_times()[:4])
        for one in self._process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found += sum(one.cpu_times()[:2])
        return float(found)

    def cpu_ms(self, count: int) -> float:
        """Since this was made, for each of so many."""
        return round((self._cpu_s() - self._before) * 1000 / max(count, 1), 2)

    def resident_mb(self) -> float:
        """Together."""
        found = 0
        for one in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found += one.memory_info().rss
        return round(found / 1e6, 1)


async def _results(host: str, port: int, site: str, count: int) -> None:
    """So many ORU^R01, each acknowledged with AA before its connection sends the next."""

    async def some(sender: int, share: int) -> None:
        async with MllpClient(host, port) as client:
            for n in range(share):
                told = (await client.send(_oru(site, f"{sender}-{n}", f"{ACCESSION}-{n % STUDIES}").encode())).decode()
                assert "MSA|AA|" in told, told

    await asyncio.gather(*(some(n, share) for n, share in enumerate(_shares(count))))


def _oru(site: str, number: str, accession: str) -> str:
    header: list[Field] = ["RIS", site, "SIJIL", "MOH", "20260102110000+0200", "", ["ORU", "R01"], number, "P", "2.5"]
    order: list[Field] = ["1", "", number, ["CTC", "CT chest", "L"], *[""] * 13, accession, "", "", ""]
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


def _rate(count: int, work: Callable[[int], T]) -> tuple[T, float]:
    """What it gives, and how many of `count` a second."""
    started = time.perf_counter()
    found = work(count)
    return found, round(count / (time.perf_counter() - started), 1)


def _until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        with suppress(httpx.HTTPError):
            if done():
                return
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)
