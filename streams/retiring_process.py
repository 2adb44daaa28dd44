"""The command `sijil retire-patient-secret`: ports and the place to be alone in around `streams.retiring`."""

from __future__ import annotations

import asyncio
from contextlib import closing

import click

from infra import telemetry
from infra.active_views import active_keyspace
from infra.cassandra import CassandraTables
from infra.chain import ChainedLog
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.patient_secret import RETIRING, Holder, agreed
from infra.settings import Settings
from infra.stack import credentials
from schemas.errors import Invalid
from schemas.patient_keys import PatientSecrets
from schemas.tables import HOLDER_TTL_S, STATE_KEYSPACE
from streams.apply import Projector
from streams.emission import publisher
from streams.material import Material
from streams.retiring import Retired, Retiring

WAIT_S = 2.0 * HOLDER_TTL_S
"""Others that make patient keys end within seconds, or are dead after HOLDER_TTL_S."""
MISSING_S = 2.0
CHAIN_CLOSE_S = 10.0


async def retire(settings: Settings, leave: int) -> Retired | None:
    """All steps of `streams.retiring`; None where that has been done. Raises PatientSecretError, Invalid, Transient."""
    given = PatientSecrets.parse(settings.patient_secret)
    connected = await asyncio.to_thread(CassandraTables.connect, settings)
    with closing(connected):
        secrets = await agreed(connected.with_keyspace(STATE_KEYSPACE), given)
        if secrets.previous is None:
            if given.previous is None:
                raise Invalid("patient-secret", "no patient secret is being replaced: `sijil secrets rotate patient`")
            return None
        holder = Holder(connected, given, RETIRING)
        await holder.hold()
        try:
            return await holder.during(_alone(settings, connected, holder, secrets, leave))
        finally:
            await holder.released()


async def _alone(
    settings: Settings, connected: CassandraTables, holder: Holder, secrets: PatientSecrets, leave: int
) -> Retired:
    await holder.alone(WAIT_S)
    tables = connected.with_keyspace(await active_keyspace(connected))
    objects, kafka = S3Objects(settings), KafkaLog(settings)
    material = Material(
        objects, documents=settings.bucket_documents, missing_s=MISSING_S, archive=settings.bucket_archive
    )
    chain = await asyncio.to_thread(ChainedLog.open, settings, "worker", kafka, objects)
    try:
        projector = Projector(tables, material, secrets)
        return await Retiring(kafka, tables, projector, publisher(chain), secrets).run(leave)
    finally:
        await asyncio.to_thread(chain.close, CHAIN_CLOSE_S)
        material.close()
        kafka.close()


@click.command()
@click.option("--leave", default=0, help="So many files whose numbers stand nowhere need not be found by them.")
def command(leave: int) -> None:
    """Destroy the patient secret that `sijil secrets rotate patient` has replaced.

    Every number gets its alias first, so that it goes on finding its file. Worker and HL7 door begin again meanwhile,
    on their own. Run it where the worker runs.
    """
    telemetry.setup("retire", "WARNING")
    settings = Settings.load("worker")
    done = asyncio.run(retire(settings, leave))
    if done is not None:
        click.echo(f"{done.numbers} numbers looked at, {done.aliases} new aliases")
    newest = PatientSecrets(PatientSecrets.parse(settings.patient_secret).newest)
    try:
        credentials.shared(settings.home, credentials.PATIENT_SECRET)
    except Invalid:
        click.echo("The previous patient secret is needed no more: destroy it where it is set.")
        return
    roles = credentials.put(settings.home, credentials.PATIENT_SECRET, str(newest))
    click.echo(f"The previous patient secret is gone from {' and '.join(roles)}.")
