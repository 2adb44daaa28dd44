"""`sijil subscription-endpoints list|approve|withdraw`: where notifications may go, through the HTTP door."""

from __future__ import annotations

from urllib.parse import quote

import click

from consumers.delivery.command import ask
from schemas.roles import Role

PATH = "/subscription-endpoints"


@click.group("subscription-endpoints")
def command() -> None:
    """The endpoints that FHIR subscriptions may name."""


@command.command("list")
def list_command() -> None:
    """Show what was approved, and by whom."""
    for row in ask("GET", PATH, role=Role.ADMINISTRATOR)["endpoints"]:
        click.echo(f"{row['prefix']}  {row['approved']}  {row['approved_by']}")


@command.command("approve")
@click.argument("prefix")
def approve(prefix: str) -> None:
    """Approve endpoints whose address begins with PREFIX: https://host[:port][/path], whole segments of the path."""
    click.echo(ask("POST", PATH, {"prefix": prefix}, role=Role.ADMINISTRATOR)["prefix"])


@command.command("withdraw")
@click.argument("prefix")
def withdraw(prefix: str) -> None:
    """Take it back: within seconds nothing goes there any more."""
    ask("DELETE", f"{PATH}?prefix={quote(prefix, safe='')}", role=Role.ADMINISTRATOR)
