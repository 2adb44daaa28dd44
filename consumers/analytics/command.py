"""`sijil analytics`: follow the topics and print studies, bytes and reports per site and day."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click
import msgspec
from rich.console import Console
from rich.table import Table

from consumers.analytics.tally import TOPICS, Tally
from infra.kafka import KafkaLog
from infra.ports import Log
from infra.settings import Settings
from schemas.envelope import decode
from schemas.errors import Invalid

FOLLOW_S = 2.0


def read(log: Log, tally: Tally, positions: dict[str, dict[int, int]]) -> int:
    """Count what is new since `positions`, which move on; how many records that were. Raises Transient."""
    new = 0
    for topic in TOPICS:
        start, ends = positions.setdefault(topic, {}), log.ends(topic)
        for stored in log.read(topic, start, ends):
            new += 1
            try:
                tally.add(decode(topic, stored.key, stored.headers, stored.value).event)
            except Invalid:
                continue  # the projectors put it with the dead letters
        start.update(ends)
    return new


def _shown(tally: Tally) -> Table:
    table = Table("site", "day", "studies", "instances", "MB", "reports")
    for line in tally.lines():
        table.add_row(
            line.site, line.day, str(line.studies), str(line.instances), f"{line.bytes / 1e6:.1f}", str(line.reports)
        )
    return table


def _rounds(follow: bool) -> Iterator[None]:
    yield
    while follow:
        time.sleep(FOLLOW_S)
        yield


@click.command("analytics")
@click.option("--follow", is_flag=True, help="Go on, and print again whenever something came.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
def command(follow: bool, as_json: bool) -> None:
    """Print studies, instances, bytes and reports per site and day, counted from the log."""
    log = KafkaLog(Settings.load("analytics"))
    console = Console(width=None if sys.stdout.isatty() else 120)
    tally, positions = Tally(), dict[str, dict[int, int]]()
    try:
        for n, _ in enumerate(_rounds(follow)):
            if not read(log, tally, positions) and n:
                continue
            if as_json:
                for line in tally.lines():
                    click.echo(msgspec.json.encode(line))
            else:
                console.print(_shown(tally))
    finally:
        log.close()
