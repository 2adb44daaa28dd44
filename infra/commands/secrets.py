"""`sijil secrets rotate`: new secrets of the archive itself. Those of servers change where the servers are."""

from __future__ import annotations

from typing import Final

import click

from infra.settings import Settings
from infra.stack import credentials

ROTATED: Final = {
    "search": ("search_secret", "What was searched for until now can be matched with nothing any more."),
    "session": ("session_secret", "Whoever is logged in logs in once more."),
}
"""What → the setting, and what it means. The patient secret is none of them: its keys are the patients' on the log."""


@click.group("secrets")
def command() -> None:
    """The archive's own secrets, in <home>/secrets/ROLE.env."""


@command.command("rotate")
@click.argument("what", type=click.Choice([*ROTATED]))
def rotate(what: str) -> None:
    """Replace a secret by a new one, and destroy the old: `search` every year, `session` when it may be known.

    Running processes keep the old one until they are started again.
    """
    name, meaning = ROTATED[what]
    roles = credentials.renew(Settings.load("admin").home, name)
    click.echo(f"The {what} secret of {' and '.join(roles)} is new once they are started again. {meaning}")


COMMANDS = (command,)
