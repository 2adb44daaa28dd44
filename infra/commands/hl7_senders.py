"""`sijil hl7-senders add|list`: who may send HL7 v2."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.table import Table

from infra import hl7_senders, telemetry
from infra.hl7_senders import Sender
from infra.ports import Tables
from infra.settings import Role, Settings


@click.group("hl7-senders")
def command() -> None:
    """The table of systems that may send HL7 v2: which facility, from where, for which site."""


@command.command("add")
@click.argument("facility")
@click.argument("network")
@click.option("--site", default="", help="Site it sends for. Default: this installation's.")
@click.option("--issuer", default="", help="Issuer of its patients' numbers. Default: its site.")
@click.option("--certificate", default="", help="SHA-256 of the certificate it must have. Default: any of the CA.")
def add(facility: str, network: str, site: str, issuer: str, certificate: str) -> None:
    """Add a FACILITY (MSH-4 of its messages), or replace its row.

    NETWORK is the address it sends from, or a network (10.2.0.0/16). The FACILITY * stands for any that sends from
    there.
    """
    with _tables("admin") as tables:
        sender = Sender(facility, network, site, issuer, certificate.lower().replace(":", ""))
        asyncio.run(hl7_senders.add(tables, sender))


@command.command("list")
def list_command() -> None:
    """Show the whole table."""
    with _tables("operator") as tables:
        found = asyncio.run(hl7_senders.read(tables))
    grid = Table(box=None, pad_edge=False)
    for name in ("facility", "network", "site", "issuer", "certificate"):
        grid.add_column(name)
    for s in found:
        grid.add_row(s.facility, s.network, s.site, s.issuer, s.certificate[:12])
    Console(highlight=False).print(grid)


@contextmanager
def _tables(role: Role) -> Iterator[Tables]:
    from infra.cassandra import CassandraTables  # here: other commands need no driver

    telemetry.setup("hl7-senders")
    tables = CassandraTables.connect(Settings.load(role))
    try:
        yield tables
    finally:
        tables.close()
