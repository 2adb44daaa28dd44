"""`sijil up`, `down`, `status`, `logs`, `migrate`, `secrets`, `settings`."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import deque
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from infra import telemetry
from infra.settings import SETTINGS, Settings
from infra.stack import cassandra, credentials, process, seaweedfs, state, status
from infra.stack import logs as part_logs
from infra.stack import parts as table
from infra.stack.errors import StackError
from infra.stack.state import PartState, RunFolder
from infra.stack.supervisor import Supervisor, stop_order
from schemas.errors import Transient

START_S = 600.0
"""Longest a start in the background is waited for: the first one downloads the servers."""

TOLD = ("starting", "ready", "failing", "restarting", "stopped")
"""What of a part's ways is told in the foreground."""
MIGRATE_S = 60.0
"""Longest that `migrate` tries again while a server is away."""


def _given() -> dict[str, str]:
    """The settings in this environment that `up` may write down: no secrets, not home itself."""
    open_ones = {s.env for s in SETTINGS if not s.secret and s.env != "SIJIL_HOME"}
    return {k: v for k, v in os.environ.items() if k in open_ones}


def _only(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else ()


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Go on in the background; come back when all parts are ready.")
@click.option(
    "--only", callback=_only, metavar="PART,...", help="Start these parts alone, for example kafka,cassandra."
)
@click.option("--then", metavar="COMMAND", help="Run this sijil command once all parts are ready, and go on serving.")
@click.option("--no-migrate", is_flag=True, help="Leave topics, tables and buckets as they are.")
def up(detach: bool, only: tuple[str, ...], then: str | None, no_migrate: bool) -> None:
    """Start the local stack: servers, migrations, and Sijil's own processes.

    Without --detach it stays in the foreground until Ctrl-C and then ends every part. Data stays in .sijil/data.
    """
    settings = Settings.load("admin")
    settings.home.mkdir(parents=True, exist_ok=True)
    chosen = table.chosen(settings, only)
    if detach:
        migrate_or_not = ["--no-migrate"] if no_migrate else []
        _up_in_background(settings, [*(["--only", ",".join(only)] if only else []), *migrate_or_not])
        return
    telemetry.setup("supervisor", settings.log_level, part_logs.path(settings.home, "supervisor").open("a"))
    console = Console(highlight=False, stderr=True)

    last: dict[str, str] = {}

    def announce(part: PartState) -> None:
        if part.health != last.get(part.name) and part.health in TOLD:
            more = f"after {part.ready_s} s" if part.health == "ready" and not part.restarts else part.why
            console.print(f"  {part.name:<10} {part.health:<10} {more}".rstrip(), markup=False, soft_wrap=True)
        last[part.name] = part.health

    followers: list[subprocess.Popen[bytes]] = []

    def serving() -> None:
        names = {part.name for part in chosen}
        doors = [f"DICOM {settings.ae_title} on port {settings.dicom_port}"] if "gateway" in names else []
        http = f"http://{table.reachable(settings.http_host)}"
        doors += (
            [f"HTTP {http}:{settings.http_port}", f"viewer {http}:{settings.viewer_port}/"] if "api" in names else []
        )
        console.print(f"serving {', '.join(doors) or ', '.join(sorted(names))}. Ctrl-C ends it.", soft_wrap=True)
        if then:
            command = [sys.executable, "-m", "infra.cli", *then.split()]
            followers.append(subprocess.Popen(command))  # noqa: S603  # a command of ours

    try:
        Supervisor(settings, chosen, _given(), announce, migrating=not no_migrate).run(serving)
    finally:
        for follower in followers:
            follower.terminate()
            follower.wait()


def _up_in_background(settings: Settings, options: list[str]) -> None:
    run = RunFolder(settings.home)
    if who := run.supervisor():
        raise StackError(f"the stack of {settings.home} is up already (pid {who.pid}): `sijil down` ends it")
    with part_logs.path(settings.home, "supervisor").open("ab") as log:
        child = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-m", "infra.cli", "up", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        ended = child.poll() is not None
        told = run.read()
        own = told if told and told.pid == child.pid else None
        if ended:
            last = part_logs.last_line(settings.home, "supervisor").removeprefix("sijil: ")
            raise StackError((own.failure if own else "") or last or "it did not start")
        if own and own.phase == "serving":
            return
        time.sleep(0.1)
    raise StackError(f"the stack is not ready after {START_S:.0f} s: `sijil status` shows what it waits for")


@click.command()
def down() -> None:
    """End the local stack: doors first, then workers, then servers. Data stays.

    Also ends what a killed supervisor left running, found by pid and start time.
    """
    settings = Settings.load("admin")
    run = RunFolder(settings.home)
    who = run.supervisor()
    if who is not None:
        budget = sum(max((s for _, s in stage), default=0.0) for stage in stop_order(table.PARTS))
        process.end({who: budget + 5.0})
    left = state.end_children(run, stop_order(table.PARTS))
    if who is None and not left:
        click.echo("nothing was running")


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="For scripts: a list of parts.")
def status_command(as_json: bool) -> None:
    """Show every part: pid, port, memory, health, how far behind it is, what waits in its spool.

    Exit status 0 if every part is ready, 1 if not.
    """
    settings = Settings.load("admin")
    shown = status.collect(settings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(part) for part in shown], indent=1))
    else:
        _print(shown)
    if not shown or any(part.health != "ready" for part in shown):
        sys.exit(1)


def _print(shown: list[status.PartStatus]) -> None:
    if not shown:
        click.echo("nothing is running: `sijil up` starts it")
        return
    grid = Table(box=None, pad_edge=False)
    for name in ("part", "pid", "port", "memory", "health", "lag", "spool backlog", ""):
        grid.add_column(name, justify="left" if name in ("part", "health", "") else "right")
    for p in shown:
        memory = f"{p.memory_mb} MB" if p.memory_mb is not None else ""
        cells: tuple[Any, ...] = (p.name, p.pid, p.port, memory, p.health, p.lag, p.spool_backlog, p.why)
        grid.add_row(*("" if c is None else str(c) for c in cells))
    Console(highlight=False).print(grid)


@click.command()
@click.argument("part")
@click.option("--lines", "-n", default=50, show_default=True, help="How many of the last lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on showing what comes until Ctrl-C.")
def logs(part: str, lines: int, follow: bool) -> None:
    """Show the log of PART: supervisor, migrate, or one of the parts that `sijil status` lists."""
    home = Settings.load("admin").home
    known = sorted({*table.BY_NAME, "supervisor", "migrate"})
    if part not in known:
        raise StackError(f"there is no part {part!r}: choose from {', '.join(known)}")
    path = part_logs.path(home, part)
    if not path.exists():
        raise StackError(f"{part} has written no log yet")
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            click.echo(line, nl=False)
        while follow:
            if line := file.readline():
                click.echo(line, nl=False)
                continue
            if file.tell() > path.stat().st_size:  # it was rotated
                file.seek(0)
            time.sleep(0.3)


@click.command()
def migrate() -> None:
    """Create the topics, tables and buckets that are missing; refuse if what is there differs.

    Safe to run again. Needs the admin's secrets. A server that is away is waited for, a minute at most.
    """
    from infra import migrate as migration  # here: it loads every driver

    telemetry.setup("migrate")
    settings = Settings.load("admin")
    until = time.monotonic() + MIGRATE_S
    while True:
        try:
            migration.run(settings, announce=click.echo)
            return
        except Transient:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


@click.group(invoke_without_command=True)
@click.pass_context
def secrets(context: click.Context) -> None:
    """Make every role's passwords and keys, for servers that this machine does not run itself.

    They are in .sijil/secrets, for their owner alone: ROLE.env for each process, superuser.cql and roles.cql for
    Cassandra, seaweedfs-s3.json for SeaweedFS. What is there is kept. `sijil up` does this by itself.
    """
    if context.invoked_subcommand is not None:
        return
    settings = Settings.load("admin")
    roles = credentials.ensure(settings.home)
    folder = settings.home / "secrets"
    for name, statements in (
        ("superuser.cql", cassandra.superuser_statements(roles["admin"])),
        ("roles.cql", cassandra.role_statements(roles)),
    ):
        credentials.write_private(folder / name, "".join(f"{s};\n" for s in statements))
    seaweedfs.write_identities(settings, roles)
    click.echo(f"in {folder}: {', '.join(sorted(f.name for f in folder.iterdir()))}")


ROTATED: Final = {
    "search": ("search_secret", "What was searched for until now can be matched with nothing any more."),
    "session": ("session_secret", "Whoever is logged in logs in once more."),
}
"""What → the setting, and what it means."""
PATIENT: Final = "patient"


@secrets.command("rotate")
@click.argument("what", type=click.Choice([*ROTATED, PATIENT]))
def rotate(what: str) -> None:
    """Replace a secret by a new one, and destroy the old: `search` every year, `session` when it may be known.

    Running processes keep the old one until they are started again. The previous `patient` secret, by which files are
    still found, stays beside the new one until `sijil retire-patient-secret`.
    """
    home = Settings.load("admin").home
    if what == PATIENT:
        roles = credentials.replace_patient_secret(home)
        click.echo(
            f"The new patient secret of {' and '.join(roles)} stands before the old one. Start {' and '.join(roles)}"
            " again, then end the replacement with `sijil retire-patient-secret`."
        )
        return
    name, meaning = ROTATED[what]
    roles = credentials.renew(home, name)
    click.echo(f"The {what} secret of {' and '.join(roles)} is new once they are started again. {meaning}")


@click.command("settings")
def settings_command() -> None:
    """Show every setting: its environment variable, its default, what it is.

    A value is taken from the environment, else from .sijil/secrets/ROLE.env, else from what `sijil up` was started with
    (.sijil/stack.env), else the default.
    """
    for s in SETTINGS:
        click.echo(f"{s.env}={'(secret)' if s.secret else s.default}\n    {s.help}")


COMMANDS = (up, down, status_command, logs, migrate, secrets, settings_command)
