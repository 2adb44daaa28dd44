"""`sijil demo`: the main job on real DICOM, through the real doors, and whether every number adds up.

The files are those that pydicom and the pydicom-data wheel ship: real modalities, every transfer syntax, and broken
ones. Steps: 1 send half by C-STORE and half by STOW-RS → 2 find all of them by QIDO-RS → 3 fetch each by WADO-RS and
compare the dataset's SHA-256 with what was sent → 4 write a report and read it back → 5 read the access trail that this
produced. It only talks to the doors, as any client would, and may be run again on the same archive.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click
import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.demo_senders import Sent, corpus, dataset_sha256, look, send_dimse, send_stow, value_of
from infra.identity.minting import authorization
from infra.settings import Settings
from schemas.roles import Role

VISIBLE_WITHIN_S = 60.0


@dataclass
class Outcome:
    """What the demo found; `faults` are numbers that do not add up."""

    sent: list[Sent]
    seconds: float = 0.0
    visible_s: float = 0.0
    studies: int = 0
    series: int = 0
    instances: int = 0
    fetched: int = 0
    report: str = ""
    trail: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Sent]:
        """The files that a door took responsibility for."""
        return [s for s in self.sent if s.acknowledged]


# ------------------------------------------------------------------------------------------------ steps 2 to 5


class Client:
    """A plain DICOMweb and API client of one archive: a PACS administrator, a sender and a radiologist."""

    def __init__(self, settings: Settings) -> None:
        self.base = f"http://{settings.http_host}:{settings.http_port}"
        self.administrator, self.sender, self.radiologist = (
            authorization(settings, role) for role in (Role.ADMINISTRATOR, Role.GATEWAY, Role.RADIOLOGIST)
        )
        self.http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=120))

    def json(self, path: str) -> Any:
        """Parsed answer of a GET; an empty list for 204 and 404."""
        accept = {"Accept": "application/dicom+json, application/json"}
        answer = self.http.request("GET", self.base + path, headers=accept | self.administrator)
        if answer.status in (204, 404):
            return []
        if answer.status != 200:
            raise click.ClickException(f"GET {path} answered {answer.status}")
        return json.loads(answer.data)

    def original(self, sent: Sent) -> bytes:
        """The stored Part 10 file of an instance."""
        path = f"/dicom-web/studies/{sent.study}/series/{sent.series}/instances/{sent.sop}/original"
        answer = self.http.request(
            "GET", self.base + path, headers={"Accept": "application/dicom"} | self.administrator
        )
        return answer.data if answer.status == 200 else b""

    def pages(self, path: str) -> list[dict[str, Any]]:
        """All pages of a QIDO-RS search."""
        found: list[dict[str, Any]] = []
        while page := self.json(f"{path}{'&' if '?' in path else '?'}limit=200&offset={len(found)}"):
            found += page
            if len(page) < 200:
                break
        return found


def find(client: Client, outcome: Outcome) -> None:
    """Step 2: wait until every acknowledged instance is found, then count what QIDO-RS says."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for sent in outcome.acknowledged:
        wanted[sent.study].add(sent.sop)
    started = time.monotonic()
    missing = dict(wanted)
    while missing and time.monotonic() - started < VISIBLE_WITHIN_S:
        missing = {s: left for s, sops in missing.items() if (left := sops - _instances(client, s))}
        if missing:
            time.sleep(0.2)
    outcome.visible_s = time.monotonic() - started
    for study, left in missing.items():
        outcome.faults.append(f"study {study}: {len(left)} acknowledged instances are not found by QIDO-RS")
    for study in wanted:
        rows = client.json(f"/dicom-web/studies?StudyInstanceUID={study}")
        if len(rows) != 1:
            outcome.faults.append(f"study {study} is found {len(rows)} times")
            continue
        outcome.studies += 1
        series, instances = int(value_of(rows[0], "00201206")), int(value_of(rows[0], "00201208"))
        outcome.series, outcome.instances = outcome.series + series, outcome.instances + instances
        found = _instances(client, study)
        if instances != len(found):
            outcome.faults.append(f"study {study}: 00201208 says {instances}, there are {len(found)}")
        if series != len(client.pages(f"/dicom-web/studies/{study}/series")):
            outcome.faults.append(f"study {study}: 00201206 says {series}, which is not the number of its series")


def _instances(client: Client, study: str) -> set[str]:
    return {value_of(row, "00080018") for row in client.pages(f"/dicom-web/studies/{study}/instances")}


def fetch(client: Client, outcome: Outcome) -> Iterator[None]:
    """Step 3: every instance comes back with a dataset that was sent under its UID."""
    offered: dict[str, set[str]] = defaultdict(set)
    for sent in outcome.acknowledged:
        offered[sent.sop].add(sent.dataset_sha256 or hashlib.sha256(sent.path.read_bytes()).hexdigest())
    for sop, sent in {s.sop: s for s in outcome.acknowledged}.items():
        body = client.original(sent)
        if {dataset_sha256(body), hashlib.sha256(body).hexdigest()} & offered[sop]:
            outcome.fetched += 1
        else:
            outcome.faults.append(f"instance {sop}: WADO-RS …/original is not what was sent ({len(body)} bytes)")
        yield


def explain(client: Client, outcome: Outcome) -> None:
    """Put the archive's own word for it beside the codes of STOW-RS: the rejections it has listed."""
    day = datetime.now(UTC).strftime("%Y%m%d")
    words = {r["sha256"]: r["reason"] for r in client.json(f"/rejections?day={day}").get("rejections", ())}
    for sent in outcome.sent:
        if not sent.acknowledged and sent.door == "STOW-RS":
            word = words.get(hashlib.sha256(sent.path.read_bytes()).hexdigest(), "")
            sent.reason = f"{sent.reason} {word}".strip()


def report(client: Client, outcome: Outcome) -> str:
    """Step 4: a report of the first study, written by the report door and read back. Returns the study's UID."""
    study = min(s.study for s in outcome.acknowledged)
    document = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}}],
        "conclusion": "No acute finding. لا توجد علامات حادة.",
    }
    answer = client.http.request(
        "POST",
        f"{client.base}/reports",
        body=json.dumps(document).encode(),
        headers={"Content-Type": "application/fhir+json"} | client.radiologist,
    )
    if answer.status not in (200, 201):
        outcome.faults.append(f"POST /reports answered {answer.status}")
        return study
    outcome.report = answer.headers.get("Location", "").partition("/reports/")[2].partition("/")[0]
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while outcome.report not in json.dumps(client.json(f"/studies/{study}/reports")):
        if time.monotonic() > deadline:
            outcome.faults.append(f"report {outcome.report} is not found at its study")
            break
        time.sleep(0.2)
    return study


def trail(client: Client, outcome: Outcome, study: str) -> None:
    """Step 5: who saw the study; the fetches of step 3 must be there."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while time.monotonic() < deadline:
        answer = client.json(f"/studies/{study}/accesses")
        outcome.trail = answer if isinstance(answer, list) else answer.get("accesses", [])
        if any("original" in str(a.get("action")) or "retrieve" in str(a.get("action")) for a in outcome.trail):
            return
        time.sleep(0.2)
    outcome.faults.append(f"study {study}: its access trail does not name the reads")


# ------------------------------------------------------------------------------------------------ all of it


def run(settings: Settings, console: Console) -> Outcome:
    """The whole demo against running doors."""
    client = Client(settings)
    outcome = Outcome([look(p) for p in corpus()])
    # What cannot be read is sent by STOW-RS; of the rest every second file goes by C-STORE.
    readable = [s for s in outcome.sent if s.study and s.sop and s.sop_class and s.syntax]
    for sent in readable[::2]:
        sent.door = "C-STORE"
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sending", total=len(outcome.sent))
        for door in ("C-STORE", "STOW-RS"):
            progress.update(task, description=f"1 sending by {door}")
            files = [s for s in outcome.sent if s.door == door]
            if door == "C-STORE":
                sending = send_dimse(settings, files)
            else:
                sending = send_stow(client.http, client.base, files, client.sender)
            for _ in sending:
                progress.advance(task)
        outcome.seconds = time.monotonic() - started
        for sent in outcome.sent:
            if not sent.acknowledged and not sent.reason:
                outcome.faults.append(f"{sent.path.name}: neither acknowledged nor refused with a reason")
        if not outcome.acknowledged:
            outcome.faults.append("nothing was acknowledged")
            return outcome
        find(client, outcome)
        task = progress.add_task("3 fetching by WADO-RS", total=len({s.sop for s in outcome.acknowledged}))
        for _ in fetch(client, outcome):
            progress.advance(task)
    study = report(client, outcome)
    trail(client, outcome, study)
    explain(client, outcome)
    return outcome


def show(settings: Settings, outcome: Outcome, console: Console) -> None:
    """What went in, what is searchable, what was refused and why, who looked."""
    took = Table(title="What went in", title_justify="left")
    for name in ("door", "files", "acknowledged", "refused", "MB"):
        took.add_column(name, justify="left" if name == "door" else "right")
    for door in ("C-STORE", "STOW-RS"):
        files = [s for s in outcome.sent if s.door == door]
        kept = [s for s in files if s.acknowledged]
        took.add_row(
            door, str(len(files)), str(len(kept)), str(len(files) - len(kept)), f"{sum(s.size for s in kept) / 1e6:.1f}"
        )
    console.print(took)
    copies = len(outcome.acknowledged) - len({(s.study, s.sop) for s in outcome.acknowledged})
    console.print(
        f"sent in {outcome.seconds:.1f} s, all of it found {outcome.visible_s:.1f} s after the last acknowledgement\n"
        f"searchable: {outcome.studies} studies, {outcome.series} series, {outcome.instances} instances; "
        f"{outcome.fetched} fetched and compared; {copies} files are further copies under a UID sent before"
    )
    reasons = Counter((s.door, s.reason) for s in outcome.sent if not s.acknowledged)
    if reasons:
        refused = Table("door", "reason", "files", "for example", title="Refused, and why", title_justify="left")
        for (door, reason), count in sorted(reasons.items()):
            example = next(s.path.name for s in outcome.sent if (s.door, s.reason) == (door, reason))
            refused.add_row(door, reason, str(count), example)
        console.print(refused)
    who = Table(
        "when", "who", "action", "purpose", "outcome", title="Who looked at the reported study", title_justify="left"
    )
    for access in outcome.trail[:8]:
        who.add_row(*(str(access.get(k, "")) for k in ("occurred", "actor", "action", "purpose", "outcome")))
    console.print(who)
    for fault in outcome.faults:
        console.print(f"[bold red]does not add up:[/] {fault}", highlight=False)
    base = f"http://{settings.http_host}:{settings.http_port}"
    if not outcome.faults:
        console.print("[bold green]Every number adds up.[/]")
    console.print(
        f"\na modality   C-STORE to {settings.ae_title} at {settings.dicom_host}:{settings.dicom_port}   "
        f"(storescu -aec {settings.ae_title} {settings.dicom_host} {settings.dicom_port} FILE)\n"
        f"a doctor     http://{settings.http_host}:{settings.viewer_port}/   studies and images in the viewer\n"
        f"a browser    {base}/   and the API's documents at {base}/docs\n"
        'curl         curl -H "Authorization: Bearer $(sijil token administrator)"'
        f" '{base}/dicom-web/studies?limit=3'\n"
        f"log-in       users and passwords: {settings.home / 'secrets' / 'users.txt'}",
        highlight=False,
        soft_wrap=True,
    )


@click.command("demo")
def command() -> None:
    """Send pydicom's DICOM files through both doors, find, fetch and report them, and check every number.

    The archive must be running (`sijil up --detach`). Exit status 0 only if every number adds up.
    """
    settings = Settings.load("operator")
    console = Console(width=None if sys.stdout.isatty() else 120)
    outcome = run(settings, console)
    show(settings, outcome, console)
    if outcome.faults:
        raise SystemExit(1)
