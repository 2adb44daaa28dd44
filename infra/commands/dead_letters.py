"""`sijil dead-letters list|show|retry`: what could not be processed, and once more."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table

from infra import clock, telemetry
from infra.dead_letters import DeadLetters, letters, send_again
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.ports import Log, Stored
from infra.settings import Settings
from schemas.errors import NotFound, Permanent
from schemas.events import DeadLetter

PIPE_COLUMNS = 200
"""A pipe has no width to fit into."""


@click.group("dead-letters")
def command() -> None:
    """Events that could not be processed. They stop nobody, and wait here for a person."""


@command.command("list")
@click.option("--reason", default="", help="Only those with this reason.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def list_command(reason: str, as_json: bool) -> None:
    """Show all, oldest first. The ID is the place of the event in the log: topic/partition/offset."""
    with _opened() as (log, _):
        found = sorted(_wanted(log, reason), key=lambda pair: pair[0].timestamp_ms)
    rows = [
        {
            "id": letter.key(),
            "time": _time(stored.timestamp_ms),
            "reason": letter.reason,
            "type": letter.origin_type,
            "consumer": letter.consumer,
        }
        for stored, letter in found
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    grid = Table(box=None, pad_edge=False)
    for name in ("id", "time", "reason", "type", "consumer"):
        grid.add_column(name, overflow="fold", no_wrap=name == "id")
    for row in rows:
        grid.add_row(*row.values())
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    Console(highlight=False, width=width).print(grid if rows else "no dead letters")


@command.command("show")
@click.argument("id")
@click.option("--payload", is_flag=True, help="Also headers and payload, decrypted. They may hold patient data.")
def show(id: str, payload: bool) -> None:
    """Show one, by its ID: why, where it came from, and on request what it is."""
    with _opened() as (log, store):
        letter = _find(log, id)
        told: dict[str, object] = {
            "id": letter.key(),
            "reason": letter.reason,
            "type": letter.origin_type,
            "consumer": letter.consumer,
            "object": letter.payload_key,
            "sha256": letter.payload_sha256,
        }
        if payload:
            record = store.read(letter)
            told |= {
                "time": _time(record.timestamp_ms),
                "key": _text(record.key),
                "headers": {name: _text(value) for name, value in record.headers},
                "payload": _text(record.value),
            }
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))


@command.command("retry")
@click.argument("ids", nargs=-1)
@click.option("--reason", default="", help="All with this reason.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
def retry(ids: tuple[str, ...], reason: str, everything: bool) -> None:
    """Send events to their topics once more, byte for byte, by their IDs, by reason, or all.

    For when the reason is gone: a worker that knows the type, a manifest that was put back. An event that fails again
    is a dead letter again. Exit status 1 if one could not be sent.
    """
    if not (ids or reason or everything):
        raise click.UsageError("which ones? Give IDs, --reason or --all")
    failed = 0
    with _opened() as (log, store), closing(KafkaLog(Settings.load("admin"))) as back:  # operators only read
        wanted = [_find(log, id) for id in ids] or [letter for _, letter in _wanted(log, reason)]
        for letter in wanted:
            try:
                place = send_again(back, store.read(letter))
            except Permanent as e:
                failed += 1
                click.echo(f"{letter.key()}: {e}", err=True)
            else:
                click.echo(f"{letter.key()} sent again as {place.topic}/{place.partition}/{place.offset}")
    sys.exit(1 if failed else 0)


@contextmanager
def _opened() -> Iterator[tuple[Log, DeadLetters]]:
    settings = Settings.load("operator")
    telemetry.setup("dead-letters", settings.log_level)
    log, objects = KafkaLog(settings), S3Objects(settings)
    try:
        yield log, DeadLetters.open(settings, objects)
    finally:
        log.close()
        objects.close()


def _wanted(log: Log, reason: str) -> list[tuple[Stored, DeadLetter]]:
    return [(s, letter) for s, letter in letters(log) if reason in ("", letter.reason)]


def _find(log: Log, id: str) -> DeadLetter:
    for _, letter in letters(log):
        if letter.key() == id:
            return letter
    raise NotFound(f"no dead letter {id}: see `sijil dead-letters list`")


def _time(timestamp_ms: int) -> str:
    return clock.rfc3339(datetime.fromtimestamp(timestamp_ms / 1000, UTC))


def _text(data: bytes | None) -> str | None:
    """As text where it is text, as base64 where it is not."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(data).decode()}"
