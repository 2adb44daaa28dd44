"""`sijil deliveries list|again`: what destinations have not got yet, and to deliver again, through the HTTP door."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click
import urllib3
from rich.console import Console
from rich.table import Table

from infra.identity.minting import authorization
from infra.settings import Settings
from schemas.errors import Invalid, Transient
from schemas.roles import Role

TIMEOUT_S = 30.0
COLUMNS = ("recorded", "destination", "report_id", "study_uid", "version", "state", "reason", "attempts")


def ask(
    method: str, path: str, document: Mapping[str, str] | None = None, *, role: Role = Role.OPERATOR
) -> dict[str, Any]:
    """A request to this installation's door, as its operator if no other role is named. Raises Transient, Invalid."""
    settings = Settings.load("operator")
    url = f"http://{settings.http_host}:{settings.http_port}{path}"
    headers = {**authorization(settings, role), "Content-Type": "application/json"}
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=TIMEOUT_S))
    body = None if document is None else json.dumps(document).encode()
    try:
        answer = pool.request(method, url, body=body, headers=headers)
    except urllib3.exceptions.HTTPError as e:
        raise Transient(f"the archive does not answer at {url}") from e
    try:
        told = json.loads(answer.data)
    except ValueError:
        told = {}
    if answer.status >= 400:
        why = told.get("detail") or told.get("title") or "no reason given"
        raise Invalid("deliveries", f"the archive refuses this ({answer.status}): {why}")
    return dict(told)


@click.group("deliveries")
def command() -> None:
    """What the health record and other destinations have not got yet."""


@command.command("list")
@click.option("--late", is_flag=True, help="Only what they should have by now.")
@click.option("--destination", default="", help="Of one destination alone, ehr for example.")
@click.option("--json", "as_json", is_flag=True, help="As the door says it, for programs.")
def list_command(late: bool, destination: str, as_json: bool) -> None:
    """Show what is owed, the oldest first. Exit status 1 if something is late."""
    found = ask("GET", f"/deliveries?limit=1000&late={int(late)}&destination={destination}")
    if as_json:
        click.echo(json.dumps(found))
    else:
        grid = Table(box=None, pad_edge=False)
        for name in COLUMNS:
            grid.add_column(name)
        for row in found["deliveries"]:
            grid.add_row(*(str(row.get(name, "")) for name in COLUMNS))
        console = Console(width=None if sys.stdout.isatty() else 200)
        console.print(grid)
        for of in found["destinations"]:
            console.print(f"{of['destination']}: {of['open']} owed, {of['late']} late")
    sys.exit(1 if any(of["late"] for of in found["destinations"]) else 0)


@command.command("again")
@click.argument("destination")
@click.option("--report", "report_id", default="", help="This report, in its current version.")
@click.option("--study", "study_uid", default="", help="This study.")
def again(destination: str, report_id: str, study_uid: str) -> None:
    """Deliver to DESTINATION again: a report or a study, or else try now whatever waits or was refused."""
    named = {n: v for n, v in (("report_id", report_id), ("study_uid", study_uid)) if v}
    click.echo(ask("POST", f"/deliveries/{destination}", named)["request_id"])
