"""`sijil`: the operator's command line. The rooms' commands come by the entry-point group `sijil.commands`.

Only what a command needs is imported, when it runs: `sijil status` answers at once.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

import click

from infra.commands import identity, stack
from infra.process import prompt_threads
from schemas.errors import SijilError

GROUP = "sijil.commands"


class Rooms(click.Group):
    """Our own commands, and those the rooms add by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Ours first; a room's is loaded when it is asked for."""
        ours = super().get_command(ctx, name)
        if ours is not None:
            return ours
        found = entry_points(group=GROUP, name=name)
        command = next(iter(found)).load() if found else None
        return command if isinstance(command, click.Command) else None


@click.group(cls=Rooms, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sijil")
def sijil() -> None:
    """The radiology archive: start it, look at it, feed it, check it.

    Data, logs and passwords are under .sijil in this folder (SIJIL_HOME names another one).
    """


for command in (*stack.COMMANDS, *identity.COMMANDS):
    sijil.add_command(command)


def main() -> None:
    """Run `sijil`; an error of ours is one line and exit status 1."""
    prompt_threads()
    try:
        sijil(prog_name="sijil")
    except SijilError as e:
        click.echo(f"sijil: {e}", err=True)
        sys.exit(1)
    except BrokenPipeError:  # `sijil logs kafka | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
