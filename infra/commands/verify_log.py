"""`sijil verify-log`: is every event there, unchanged, and every object that they name?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from infra import telemetry
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.settings import Settings
from infra.verify import Report, verify
from infra.verify_accesses import Proof, prove

PIPE_COLUMNS = 200
"""A pipe has no width to fit into."""


@click.command("verify-log")
@click.option("--fast", is_flag=True, help="Believe the checksums that S3 keeps: do not read the objects.")
@click.option("--accesses", is_flag=True, help="Only accesses: that none was removed, changed or slipped in.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ"]),
    help="With --accesses: from then on (UTC); without it from the beginning.",
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def command(fast: bool, accesses: bool, since: datetime | None, as_json: bool) -> None:
    """Check that the log is whole and that S3 has what it names.

    Reads every event of every topic. Each producer's chain must have no gap and no altered event, and must reach as far
    as it was anchored in S3. Each pack, manifest, archive copy, report and dead letter that an event names must be in
    S3 with the checksum the event gives; by default their bytes are read and hashed. Exit status 1 on any fault.

    With --accesses, proves from the log and the anchors alone that the record of who looked is whole. Nothing of the
    archive itself has to run.
    """
    if since is not None and not accesses:
        raise click.UsageError("--since goes with --accesses")
    if fast and accesses:
        raise click.UsageError("--fast is not for --accesses: lists of what was shown are read")
    settings = Settings.load("operator")
    telemetry.setup("verify-log", settings.log_level)
    log, objects = KafkaLog(settings), S3Objects(settings)
    shown = Progress(
        TextColumn("events"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    try:
        with shown:
            task = shown.add_task("events")

            def told_of(done: int, total: int) -> None:
                shown.update(task, completed=done, total=total)

            documents, anchors = settings.bucket_documents, settings.bucket_anchors
            report: Report | Proof
            if accesses:
                moment = since.replace(tzinfo=UTC) if since else None
                report = prove(log, objects, documents=documents, anchors=anchors, since=moment, progress=told_of)
            else:
                report = verify(log, objects, documents=documents, anchors=anchors, fast=fast, progress=told_of)
    finally:
        log.close()
        objects.close()
    if as_json:
        told = asdict(report) | {"faults": report.faults, "ok": not report.faults}
        click.echo(json.dumps(told, indent=2, default=sorted))
    elif isinstance(report, Proof):
        _print_proof(report)
    else:
        _print(report)
    sys.exit(1 if report.faults else 0)


def _print(report: Report) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    topics = _table("topic", "events", "unchained", "repeated", "unreadable")
    for name, topic in report.topics.items():
        if topic.records:
            topics.add_row(name, *_figures(topic.records, topic.unchained, topic.repeated, topic.unreadable))
    chains = _table("chain", "events", "last", "anchors", "anchored up to", "faults")
    for source, chain in report.chains.items():
        figures = _figures(chain.records, chain.last, chain.anchors, chain.anchored, len(chain.faults))
        chains.add_row(source, *figures)
    for source, count in sorted(report.unchained.items()):
        chains.add_row(source, f"{count:,}", "unchained", "", "", "")
    objects = _table("objects", "checked", "MB", "faults")
    for kind, found in report.objects.items():
        objects.add_row(kind, f"{found.checked:,}", f"{found.bytes / 1e6:,.1f}", f"{len(found.faults):,}")
    for table in (topics, chains, objects):
        if table.row_count:
            console.print(table)
            console.print()
    for fault in report.faults:
        console.print(f"FAULT {fault}", soft_wrap=True, markup=False)
    how = "by the checksums S3 keeps; their bytes were not read" if report.fast else "by their bytes"
    console.print(f"objects were checked {how}")
    console.print(f"{len(report.faults)} faults" if report.faults else "no fault: the log is whole")


def _print_proof(proof: Proof) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    chains = _table("chain", "taken up at", "events", "last", "anchored up to", "anchored at", "chain alone", "faults")
    for source, chain in proof.chains.items():
        figures = _figures(chain.base, chain.records, chain.last, chain.anchored)
        rest = _figures(chain.unanchored, len(chain.faults))
        chains.add_row(source, *figures, chain.anchored_at or "never", *rest)
    accesses = _table("accesses", "events")
    for kind, count in sorted(proof.accesses.items()):
        accesses.add_row(kind, f"{count:,}")
    for table in (chains, accesses):
        if table.row_count:
            console.print(table)
            console.print()
    for fault in proof.faults:
        console.print(f"FAULT {fault}", soft_wrap=True, markup=False)
    since = f"since {proof.since}" if proof.since else "since the beginning"
    if proof.faults:
        console.print(f"{len(proof.faults)} faults: the record of accesses {since} is not whole")
        return
    total = sum(proof.accesses.values())
    console.print(f"no fault: {total:,} access events {since}, none removed, changed or slipped in")
    if any(chain.unanchored for chain in proof.chains.values()):
        console.print(
            "what is newer than its chain's last anchor is covered by the chain alone: ask again in some minutes"
        )


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _figures(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{n:,}" for n in numbers)
