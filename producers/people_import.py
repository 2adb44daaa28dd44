"""`sijil people import FILE.csv`: staff from a table, through the people door as any client would send them.

Columns, in any order: staff_number, national_id (one of the two), name, roles, sites, subspecialties, active. Several
values are separated by `;` or `|`. A line that is wrong is told by its number, the others go in; what is there already
is no change. Values go to the door and nowhere else: not to the terminal.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import urllib3

from infra.identity.minting import authorization
from infra.settings import Settings
from producers.people import FHIR_JSON
from schemas.errors import Invalid, Transient
from schemas.identity import NATIONAL_ISSUER
from schemas.people import ROLE_SYSTEM, STAFF_NUMBER_SYSTEM
from schemas.roles import Role

COLUMNS: Final = ("staff_number", "national_id", "name", "roles", "sites", "subspecialties", "active")
NEEDED: Final = frozenset({"name", "roles"})
YES: Final = frozenset({"", "1", "true", "yes", "y", "نعم"})
NO: Final = frozenset({"0", "false", "no", "n", "لا"})
ATTEMPTS: Final = 20
WAIT_S_MAX: Final = 60.0
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Line:
    """A line of the table as the two resources that it says; the role has no practitioner yet."""

    number: int
    practitioner: Mapping[str, Any]
    role: Mapping[str, Any]


@dataclass(frozen=True)
class Wrong:
    """A line that is not taken."""

    number: int
    why: str


def lines(data: bytes) -> Iterator[Line | Wrong]:
    """The lines of a CSV in UTF-8, with or without a byte order mark, fields separated by `,` or `;`. Raises
    Invalid(`csv-encoding`, `csv-columns`).
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Invalid("csv-encoding", "the file is not UTF-8: save it as `CSV UTF-8`") from e
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if "," not in header else ",", strict=False)
    names = [n.strip().lower() for n in reader.fieldnames or ()]
    there = set(names)
    if NEEDED - there or there - set(COLUMNS) or not there & {"staff_number", "national_id"}:
        raise Invalid("csv-columns", f"the first line names the columns: {', '.join(COLUMNS)}")
    reader.fieldnames = names
    for row in reader:
        if None in row:
            yield Wrong(reader.line_num, "it has more fields than there are columns")
        elif any(v and v.strip() for v in row.values()):
            yield _line(reader.line_num, {n: (row.get(n) or "").strip() for n in COLUMNS})


def _line(number: int, row: Mapping[str, str]) -> Line | Wrong:
    active = row["active"].lower()
    if active not in YES | NO:
        return Wrong(number, "active is true or false")
    systems = ((NATIONAL_ISSUER, row["national_id"]), (STAFF_NUMBER_SYSTEM, row["staff_number"]))
    identifiers = [{"system": s, "value": v} for s, v in systems if v]
    if not identifiers:
        return Wrong(number, "it has neither a staff_number nor a national_id")
    if not row["name"]:
        return Wrong(number, "it has no name")
    here = active in YES
    practitioner = {
        "resourceType": "Practitioner",
        "active": here,
        "identifier": identifiers,
        "name": [{"text": n} for n in _several(row["name"], "|")],
    }
    role = {
        "resourceType": "PractitionerRole",
        "active": here,
        "code": [{"coding": [{"system": ROLE_SYSTEM, "code": c.lower()}]} for c in _several(row["roles"])],
        "location": [{"reference": f"Location/{s}"} for s in _several(row["sites"])],
        "specialty": [{"coding": [{"code": c}]} for c in _several(row["subspecialties"])],
    }
    return Line(number, practitioner, role)


def _several(text: str, separators: str = ";|") -> list[str]:
    for separator in separators:
        text = text.replace(separator, "\n")
    return [part.strip() for part in text.split("\n") if part.strip()]


@dataclass(frozen=True)
class Answer:
    """What the door said."""

    status: int
    told: Mapping[str, Any]
    retry_after: str = ""

    @property
    def why(self) -> str:
        """Of a refusal."""
        return str(self.told.get("detail") or self.told.get("title") or f"status {self.status}")


Post = Callable[[str, Mapping[str, Any]], Answer]
"""(path, resource) → answer. Raises Transient when there is none."""


@dataclass
class Summary:
    """What became of the lines."""

    changed: int = 0
    same: int = 0
    wrong: int = 0


def run(found: Iterator[Line | Wrong], post: Post, tell: Callable[[str], None]) -> Summary:
    """Send them one after the other. Raises Transient when the archive stays away, Invalid when it lets nobody in."""
    summary = Summary()
    for line in found:
        why, changed = (line.why, False) if isinstance(line, Wrong) else _send(line, post)
        if why:
            summary.wrong += 1
            tell(f"line {line.number}: {why}")
        elif changed:
            summary.changed += 1
        else:
            summary.same += 1
    return summary


def _send(line: Line, post: Post) -> tuple[str, bool]:
    """(why it was refused, whether something is another now)."""
    first = _ask(post, "/fhir/Practitioner", line.practitioner)
    if first.status >= 400:
        return first.why, False
    role = {**line.role, "practitioner": {"reference": f"Practitioner/{first.told['id']}"}}
    second = _ask(post, "/fhir/PractitionerRole", role)
    if second.status >= 400:
        return second.why, False
    return "", bool(first.told["changed"] or second.told["changed"])


def _ask(post: Post, path: str, document: Mapping[str, Any]) -> Answer:
    for _ in range(ATTEMPTS):
        answer = post(path, document)
        if answer.status in (401, 403):
            raise Invalid("people-import", f"the archive does not let this in: {answer.why}")
        if answer.status not in (429, 503):
            return answer
        time.sleep(min(WAIT_S_MAX, float(answer.retry_after) if answer.retry_after.isdigit() else 1.0))
    raise Transient("the archive is away or busy: call this again, it goes on where it was")


def _over_http(url: str, headers: Mapping[str, str]) -> Post:
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=TIMEOUT_S))

    def post(path: str, document: Mapping[str, Any]) -> Answer:
        body, more = json.dumps(document, ensure_ascii=False).encode(), {**headers, "Content-Type": FHIR_JSON}
        try:
            answer = pool.request("POST", url.rstrip("/") + path, body=body, headers=more)
        except urllib3.exceptions.HTTPError as e:
            raise Transient(f"the archive does not answer at {url}") from e
        try:
            told = json.loads(answer.data)
        except ValueError:
            told = {}
        return Answer(answer.status, told if isinstance(told, dict) else {}, answer.headers.get("Retry-After", ""))

    return post


@click.group("people")
def command() -> None:
    """Staff: who works at which site, in which roles."""


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--url", default="", help="Address of the archive. Default: this installation's.")
def import_command(file: Path, url: str) -> None:
    """Register or change staff by a CSV FILE in UTF-8.

    Columns: staff_number, national_id (one of the two at least), name, roles, sites, subspecialties, active. Several
    roles, sites or subspecialties are separated by `;`, a name in two scripts by `|`. Lines that are wrong are told by
    their number, the others go in. Called again it changes nothing. Exit status 0 if every line went in.
    """
    settings = Settings.load("operator")
    ours = f"http://{settings.http_host}:{settings.http_port}"
    # A token of this installation's issuer is for this installation alone
    headers = authorization(settings, Role.ADMINISTRATOR) if not url or settings.token else {}
    post = _over_http(url or ours, headers)
    summary = run(lines(file.read_bytes()), post, lambda text: click.echo(text, err=True))
    click.echo(f"changed {summary.changed}, as they were {summary.same}, not taken {summary.wrong}")
    sys.exit(1 if summary.wrong else 0)
