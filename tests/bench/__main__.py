"""`make bench`: figures of this machine, printed as tables and written as JSON. Nothing here passes or fails by time.

    python -m tests.bench [--slices 120] [--studies 8] [--queued 10000] [--messages 2000] [--out FILE.json]

`--slices 0` measures reports alone: signed to visible, to the health record, deliveries and HL7 messages a second.

It starts a whole archive of its own on free ports, with fresh data, and ends it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.chain import ChainedLog
from infra.clock import now, rfc3339, uuid7
from infra.kafka import KafkaLog
from infra.settings import Settings
from infra.stack import status
from schemas.events import AccessGranted, Shown
from tests.bench import durability, reports
from tests.bench.access_cost import cost
from tests.bench.clients import Doors, Ingest, Latency, ingest, latency, questions, retrieves
from tests.bench.corpus import Instance, make_ct
from tests.local_stack import LocalStack, superuser

EXPLICIT, IMPLICIT = "Explicit VR LE", "Implicit VR LE"
RUNS = (
    ("C-STORE", EXPLICIT, 1),
    ("C-STORE", EXPLICIT, 4),
    ("STOW-RS", EXPLICIT, 1),
    ("STOW-RS", EXPLICIT, 4),
    ("C-STORE", IMPLICIT, 4),
    ("STOW-RS", IMPLICIT, 4),
)
"""Most modalities send Implicit VR; nothing leaves in it, so retrieval encodes it anew."""
EVENTS = 20_000
"""Events published to see how fast the projections take them."""


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "python": platform.python_version()}


def access_events(settings: Settings, folder: Path) -> dict[str, Latency]:
    """Cost of one access event: until it is fsynced in the chain's journal, and until Kafka has acknowledged it."""
    log = KafkaLog(superuser(settings))
    chain = ChainedLog(log, folder, "/bench/LOCAL/1", backlog_max=100_000, anchors=None)
    kept, acknowledged = [], []
    try:
        for _ in range(300):
            started = time.perf_counter()
            publication = chain.publish(_granted())
            publication.kept.result(10)
            kept.append(time.perf_counter() - started)
            publication.acknowledged.result(10)
            acknowledged.append(time.perf_counter() - started)
    finally:
        chain.close(10)
        log.close()
    return {"fsynced in the journal": Latency.of(kept[20:]), "acknowledged by Kafka": Latency.of(acknowledged[20:])}


def _granted() -> AccessGranted:
    id = str(uuid7())
    return AccessGranted(
        access_id=id,
        actor="http:127.0.0.1",
        role="local",
        purpose="TREAT",
        action="retrieve-instance",
        occurred=rfc3339(now()),
        study_uid=f"2.25.{int(id.replace('-', '')[:16], 16)}",
        shown=[Shown(study_uid="2.25.1")],
        shown_count=1,
        window_s=60,
    )


def projection(settings: Settings, folder: Path) -> dict[str, float]:
    """Events a second that the worker projects: from the first published until it has passed the last."""
    log = KafkaLog(superuser(settings))
    chain = ChainedLog(log, folder, "/bench/LOCAL/2", backlog_max=200_000, anchors=None)
    try:
        started = time.perf_counter()
        last = [chain.publish(_granted()) for _ in range(EVENTS)]
        for publication in last:
            publication.acknowledged.result(120)
        published = time.perf_counter() - started
        deadline = time.monotonic() + 300
        while _lag(settings) and time.monotonic() < deadline:
            time.sleep(0.1)
        projected = time.perf_counter() - started
    finally:
        chain.close(30)
        log.close()
    return {
        "events": EVENTS,
        "published per second": round(EVENTS / published),
        "projected per second": round(EVENTS / projected),
    }


def _lag(settings: Settings) -> int:
    return next((p.lag or 0 for p in status.collect(settings) if p.name == "worker"), 0)


def run(slices: int, studies: int, queued: int, messages: int, console: Console) -> dict[str, Any]:
    """All measurements, on an archive of its own."""
    with tempfile.TemporaryDirectory(prefix="sijil-bench-") as name:
        folder = Path(name)
        record = reports.Record()
        stack = LocalStack.at(folder / ".sijil", quiet_s=5, ehr_url=record.url)
        console.print("starting an archive …")
        stack.start()
        try:
            measured = measure(stack, folder, slices, studies, console) if slices else {"machine": machine()}
            console.print("reports …")
            return {**measured, "reports": reports.measure(stack, record, queued=queued, messages=messages)}
        finally:
            stack.remove()
            record.close()


def measure(stack: LocalStack, folder: Path, slices: int, studies: int, console: Console) -> dict[str, Any]:
    """On a running, fresh stack."""
    settings = stack.settings("api")
    doors = Doors(
        f"http://{settings.http_host}:{settings.http_port}", settings.dicom_host, settings.dicom_port, settings.ae_title
    )
    ingests: list[Ingest] = []
    corpora: dict[str, list[list[Instance]]] = {}
    for n, (door, encoding, senders) in enumerate(RUNS):
        corpus = corpora[encoding] = make_ct(
            folder / f"run-{n}", studies=studies, slices=slices, seed=500 + n, implicit=encoding == IMPLICIT
        )
        console.print(f"ingest {door}, {encoding}, {senders} senders …")
        ingests.append(ingest(doors, door, encoding, senders, corpus))
        _settle(settings)
    console.print("queries and retrieves …")
    asked = questions(corpora[EXPLICIT][0])
    for encoding, corpus in corpora.items():
        asked |= {f"{name}, {encoding}": ask for name, ask in retrieves(corpus[0]).items()}
    reads = {name: latency(ask, doors.base, n) for name, (ask, n) in asked.items()}
    memory = {p.name: p.memory_mb for p in status.collect(stack.settings("admin"))}
    added = cost(doors.base, corpora[EXPLICIT])
    console.print("events …")
    events = access_events(settings, folder / "chain-1")
    projected = projection(settings, folder / "chain-2")
    console.print("durable settings …")
    admin = stack.settings("admin")
    durable = {
        "Kafka, one record of 1 KB": durability.kafka(admin),
        "Cassandra, one row": durability.cassandra(admin),
        "S3, a pack of 8 MiB": durability.s3(admin),
    }
    return {
        "machine": machine(),
        "corpus": {
            "studies": studies,
            "slices": slices,
            "bytes_per_slice": corpora[EXPLICIT][0][0].path.stat().st_size,
        },
        "ingest": ingests,
        "reads_ms": reads,
        "access_event_ms": events,
        "access_event_cost_ms": added,
        "projection": projected,
        "memory_mb": memory,
        "durable_settings_ms": durable,
    }


def _settle(settings: Settings) -> None:
    """Until spools are empty and projections have caught up, so that one run does not pay for another."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        parts = status.collect(settings)
        if not any((p.spool_backlog or 0) + (p.lag or 0) for p in parts):
            return
        time.sleep(0.3)


def show(result: dict[str, Any], console: Console) -> None:
    """The tables."""
    m, c = result["machine"], result["corpus"]
    console.print(
        f"\n{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, Python {m['python']}; clients on the same machine"
    )
    title = f"Ingest: {c['studies']} studies of {c['slices']} slices of {c['bytes_per_slice'] / 1e6:.2f} MB"
    table = Table(
        "door",
        "encoding",
        "senders",
        "instances/s",
        "MB/s",
        "queryable p50 ms",
        "p95 ms",
        title=title,
        title_justify="left",
    )
    for i in result["ingest"]:
        table.add_row(
            i.door,
            i.encoding,
            str(i.senders),
            f"{i.instances / i.seconds:.0f}",
            f"{i.megabytes / i.seconds:.0f}",
            f"{i.visible.p50:.0f}",
            f"{i.visible.p95:.0f}",
        )
    console.print(table)
    for title, rows in (
        ("Reads, one client, access events included", result["reads_ms"]),
        ("One access event", result["access_event_ms"]),
        ("What it adds to an answer", result["access_event_cost_ms"]),
        *((f"Durable settings: {name}", rows) for name, rows in result["durable_settings_ms"].items()),
    ):
        table = Table("", "n", "p50 ms", "p95 ms", title=title, title_justify="left")
        for name, of in rows.items():
            table.add_row(name, str(of.n), f"{of.p50:.2f}", f"{of.p95:.2f}")
        console.print(table)
    console.print(f"projection: {result['projection']}")
    console.print(
        f"memory after ingest, MB: {result['memory_mb']}, together {sum(filter(None, result['memory_mb'].values()))}"
    )


def show_reports(found: dict[str, Any], console: Console) -> None:
    """The way of reports, as a table."""
    table = Table("", "n", "p50 ms", "p95 ms", title="Reports, one after the other", title_justify="left")
    for name, of in found["latency_ms"].items():
        table.add_row(name, str(of.n), f"{of.p50:.0f}", f"{of.p95:.0f}")
    console.print(table)
    console.print(f"rates: {found['rates']}")
    console.print(f"delivery process: {found['delivery']}; HL7 process: {found['hl7']}")


def main() -> None:
    """Parse, measure, show, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--queued", type=int, default=10_000, help="reports issued while the health record is away")
    parser.add_argument("--messages", type=int, default=2_000, help="ORU^R01 by MLLP")
    parser.add_argument("--out", type=Path, default=Path("bench-results/latest.json"))
    arguments = parser.parse_args()
    console = Console(width=120)
    result = run(arguments.slices, arguments.studies, arguments.queued, arguments.messages, console)
    if arguments.slices:
        show(result, console)
    show_reports(result["reports"], console)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1, default=dataclasses.asdict))
    console.print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
