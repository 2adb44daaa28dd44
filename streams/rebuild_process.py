"""The command `sijil rebuild`: ports, keyspace, progress and switch around `streams.replay`."""

from __future__ import annotations

import asyncio
import json
import re

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra import telemetry
from infra.active_views import activate, active_keyspace
from infra.cassandra import CassandraTables
from infra.kafka import KafkaLog, commit_offsets
from infra.migrate import create_views
from infra.objects import S3Objects
from infra.patient_secret import Holder
from infra.settings import Settings
from schemas.errors import Defect, Invalid
from schemas.patient_keys import PatientSecrets
from schemas.tables import VIEWS_KEYSPACE
from streams.apply import Projector
from streams.material import Material
from streams.replay import Ends, Replay, Replayed, current_ends, left, next_keyspace, settle
from streams.worker_process import group_of

_NAME = re.compile(rf"{VIEWS_KEYSPACE}(_[a-z0-9]{{1,20}})?\Z")
MISSING_S = 2.0
"""How long an object that an old event names is waited for."""


async def rebuild(to: str, switch: bool, fixed: Ends | None, console: Console) -> tuple[str, Replayed]:
    """Steps 1 to 4 of `streams.replay`. Returns the keyspace and what was done."""
    admin, settings = Settings.load("admin"), Settings.load("worker")
    owner = await asyncio.to_thread(CassandraTables.connect, admin)
    tables = await asyncio.to_thread(CassandraTables.connect, settings)
    kafka, objects = KafkaLog(settings), S3Objects(settings)
    material = Material(
        objects, documents=settings.bucket_documents, missing_s=MISSING_S, archive=settings.bucket_archive
    )
    try:
        active = await active_keyspace(owner)
        keyspace = to or next_keyspace(active)
        if not _NAME.match(keyspace):
            raise Invalid("keyspace-name", f"the name has to be {VIEWS_KEYSPACE}_ and up to 20 letters or digits")
        if keyspace == active:
            raise Invalid("keyspace-active", f"{keyspace} is the one that answers: rebuild into another")
        holder = Holder(tables, PatientSecrets.parse(settings.patient_secret), f"rebuild of {keyspace}")
        secrets = await holder.admitted()

        async def filled() -> Replayed:
            # Step 1: a fresh keyspace
            await asyncio.to_thread(create_views, admin, keyspace)
            projector = Projector(tables.with_keyspace(keyspace), material, secrets)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=console) as progress:
                known = await asyncio.to_thread(current_ends, kafka) if fixed is None else fixed
                task = progress.add_task(f"events into {keyspace}", total=left({}, known))
                # Step 2: everything, again
                done = await Replay(kafka, projector, lambda n: progress.advance(task, n)).run(fixed)
            await settle(tables.with_keyspace(keyspace))
            if switch and not done.lost:
                # Step 3: the worker of the new keyspace begins where this ended
                await asyncio.to_thread(commit_offsets, settings, group_of(keyspace), done.ends)
                # Step 4: it answers
                await activate(owner, keyspace)
            return done

        try:
            return keyspace, await holder.during(filled())
        finally:
            await holder.released()
    finally:
        material.close()
        kafka.close()
        tables.close()
        owner.close()


@click.command()
@click.option("--to-keyspace", default="", help="Name of the fresh keyspace; the next number if not given.")
@click.option("--switch/--no-switch", default=True, help="Let the rebuilt tables answer; else only fill them.")
@click.option(
    "--ends", "ends_file", type=click.File(), help="Stop at the offsets of this JSON file, as printed before."
)
def command(to_keyspace: str, switch: bool, ends_file: click.utils.LazyFile | None) -> None:
    """Make all tables anew from the event log and the packs, then let the new ones answer.

    The archive goes on receiving and answering meanwhile. The old tables stay until you drop their keyspace.
    """
    telemetry.setup("rebuild", "WARNING")
    console = Console(stderr=True, highlight=False)
    fixed: Ends | None = None
    if ends_file is not None:
        fixed = {t: {int(p): n for p, n in found.items()} for t, found in json.load(ends_file).items()}
    keyspace, done = asyncio.run(rebuild(to_keyspace, switch, fixed, console))
    rate = done.events / done.seconds if done.seconds else 0.0
    click.echo(
        f"{done.events} events, {done.rows} rows into {keyspace} in {done.seconds:.1f} s ({rate:.0f} events/s);"
        f" {done.passed_over} could not be processed (see `sijil dead-letters list`)"
    )
    click.echo(json.dumps(done.ends))
    if done.lost:
        first = done.lost[0]
        raise Defect(
            f"{len(done.lost)} events name objects that are gone or damaged, the first is"
            f" {first.topic}/{first.partition}/{first.offset}: {keyspace} lacks them and does not answer"
        )
    if switch:
        click.echo(f"{keyspace} answers now; worker and API go over within seconds")
