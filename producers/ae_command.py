"""`sijil ae add|list|remove|test`: who may call, and where to send."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager

import click
from rich.console import Console
from rich.table import Table

from infra import ae_table, telemetry
from infra.ae_table import ANY, ROLES, Ae
from infra.chain import ChainedLog
from infra.ports import Tables
from infra.settings import Role, Settings
from infra.tls import Client
from producers.devices import Devices
from schemas.errors import NotFound, Transient

ACKNOWLEDGED_S = 10.0
CLOSE_S = 1.0
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"


@click.group()
def ae() -> None:
    """The table of DICOM application entities: who may call this archive, and where it may send."""


@ae.command("add")
@click.argument("title")
@click.argument("host")
@click.argument("port", type=int)
@click.option("--site", default="", help="Site whose studies it sends. Default: this installation's.")
@click.option("--role", type=click.Choice(ROLES), default="modality", show_default=True, help="What it is.")
@click.option("--issuer", default="", help="Issuer of the patient ids it sends without one. Default: its site.")
@click.option("--certificate", default="", help="SHA-256 of the certificate it must have. Default: any of the CA.")
@click.option("--tls", is_flag=True, help="Where it listens it speaks TLS.")
def add(title: str, host: str, port: int, site: str, role: str, issuer: str, certificate: str, tls: bool) -> None:
    """Add an AE, or replace the one of that TITLE.

    HOST is its address or name, or the network it calls from (10.2.0.0/16). PORT is where it listens, 0 if nothing is
    ever sent to it. The TITLE * stands for every title that calls from HOST.
    """
    named = certificate.lower().replace(":", "")
    ae = Ae(title, host, port, site, role, issuer, named, tls)
    _decide(lambda devices, tables: devices.put(tables, ae, _actor()))


@ae.command("remove")
@click.argument("title")
def remove(title: str) -> None:
    """Remove the AE of that TITLE: it may call no more."""
    _decide(lambda devices, tables: devices.remove(tables, title, _actor(), operator=True))


@ae.command("list")
def list_command() -> None:
    """Show the whole table."""
    grid = Table(box=None, pad_edge=False)
    for name in ("title", "host", "port", "site", "role", "issuer", "certificate", "tls"):
        grid.add_column(name, justify="right" if name == "port" else "left")
    for entry in _read():
        grid.add_row(
            entry.ae_title,
            entry.host,
            str(entry.port or ""),
            entry.site,
            entry.role,
            entry.issuer,
            entry.certificate[:12],
            "yes" if entry.tls else "",
        )
    Console(highlight=False).print(grid)


@ae.command("test")
@click.argument("title")
def test(title: str) -> None:
    """Send a C-ECHO to the AE of that TITLE; exit status 0 if it answers with success.

    The archive's own title tests this archive's DICOM door.
    """
    from infra.dicom_command import VERIFICATION  # here: only this command opens an association
    from infra.dicom_scu import Outgoing, Proposed

    settings = Settings.load("operator")
    telemetry.setup("ae", settings.log_level)
    if title == settings.ae_title:
        found: Ae | None = Ae(title, settings.dicom_host, settings.dicom_port)
    else:
        found = next((e for e in _read() if e.ae_title == title and title != ANY), None)
    if found is None or not found.port:
        raise NotFound(f"no AE {title!r} with a port is in the table: `sijil ae add {title} HOST PORT`")
    where = f"{title} at {found.host}:{found.port}"
    try:
        with Outgoing(found, settings.ae_title, tls=Client.of(settings)) as association:
            association.associate([Proposed(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))])
            status = association.echo() if association.contexts else None
    except Transient as e:
        click.echo(f"{where}: {e}", err=True)
        sys.exit(1)
    if status:
        click.echo(f"{where} answers C-ECHO with {status:04X}", err=True)
        sys.exit(1)
    click.echo(f"{where} answers" if status == 0 else f"{where} accepts associations, but no C-ECHO")


def _actor() -> str:
    """Who calls: the account at this machine, by its number."""
    return f"operator:{os.getuid()}"


def _decide(change: Callable[[Devices, Tables], Awaitable[object]]) -> None:
    """Carry a change out, whose event is on a chain of this command's own first.

    With Kafka away it is in that chain's journal, and the next such command sends it.
    """
    from infra.kafka import KafkaLog  # here, as the driver below
    from infra.objects import S3Objects

    settings = Settings.load("admin")
    with _tables("admin") as tables, closing(KafkaLog(settings)) as kafka:
        chain = ChainedLog.open(settings, "admin", kafka, S3Objects(settings))
        try:
            devices = Devices(chain, acknowledged_s=ACKNOWLEDGED_S)

            async def run() -> None:
                await change(devices, tables)

            asyncio.run(run())
        finally:
            chain.close(CLOSE_S)


def _read() -> list[Ae]:
    with _tables("operator") as tables:
        return asyncio.run(ae_table.read(tables))


@contextmanager
def _tables(role: Role) -> Iterator[Tables]:
    from infra.cassandra import CassandraTables  # here: `sijil status` and its kind need no driver

    telemetry.setup("ae")
    tables = CassandraTables.connect(Settings.load(role))
    try:
        yield tables
    finally:
        tables.close()
