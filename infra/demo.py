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
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pydicom
import urllib3
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.settings import Settings

CONTEXTS_MAX = 120
"""Presentation contexts of one association: PS3.8 allows 128."""
STOW_FILES = 10
VISIBLE_WITHIN_S = 60.0
SEPARATOR = "sijil-demo-part"


@dataclass
class Sent:
    """One file, what became of it, and what it holds."""

    path: Path
    door: str
    study: str = ""
    series: str = ""
    sop: str = ""
    sop_class: str = ""
    syntax: str = ""
    dataset_sha256: str = ""
    size: int = 0
    acknowledged: bool = False
    reason: str = ""


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


def corpus() -> list[Path]:
    """DICOM files that pydicom and pydicom-data ship, by path: pydicom's own finder would try to download."""
    roots = [Path(pydicom.__file__).parent / "data" / "test_files"]
    extra = find_spec("data_store")
    if extra is not None and extra.origin:
        roots.append(Path(extra.origin).parent / "data")
    found = (p for root in roots for p in sorted(root.rglob("*")) if p.is_file())
    return [p for p in found if p.suffix in (".dcm", "") and not p.name.startswith(".")]


def look(path: Path) -> Sent:
    """What a sender knows of its file. Whatever it cannot read goes by STOW-RS, as it is, for the archive to judge."""
    sent = Sent(path, "STOW-RS", size=path.stat().st_size)
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote values
            ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            sent.syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
            sent.study, sent.series = str(ds.get("StudyInstanceUID", "")), str(ds.get("SeriesInstanceUID", ""))
            sent.sop, sent.sop_class = str(ds.get("SOPInstanceUID", "")), str(ds.get("SOPClassUID", ""))
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError, EOFError, OSError):
        return sent
    sent.dataset_sha256 = dataset_sha256(path.read_bytes())
    return sent


def dataset_sha256(part10: bytes) -> str:
    """SHA-256 of what follows the File Meta (PS3.10 §7.1); empty where its length is not given."""
    if part10[128:136] != b"DICM\x02\x00\x00\x00":
        return ""
    end = 144 + int.from_bytes(part10[140:144], "little")
    return hashlib.sha256(memoryview(part10)[end:]).hexdigest()


# ------------------------------------------------------------------------------------------------ step 1: send


def send_dimse(settings: Settings, files: Sequence[Sent]) -> Iterator[Sent]:
    """C-STORE of each file as it is on disk; yields each when it is answered."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # the file's own bytes: no re-encoding on the way
    pairs = sorted({(s.sop_class, s.syntax) for s in files})
    for at in range(0, len(pairs), CONTEXTS_MAX):
        chosen = pairs[at : at + CONTEXTS_MAX]
        ae = AE(ae_title="SIJILDEMO")
        ae.requested_contexts = [build_context(UID(c), UID(t)) for c, t in chosen]
        assoc = ae.associate(settings.dicom_host, settings.dicom_port, ae_title=settings.ae_title)
        mine = [s for s in files if (s.sop_class, s.syntax) in chosen]
        if not assoc.is_established:
            for sent in mine:
                sent.reason = "association rejected"
            yield from mine
            continue
        for sent in mine:
            try:
                status = assoc.send_c_store(sent.path)
                code = status.Status if "Status" in status else None
                sent.acknowledged = code is not None and (code == 0 or code >> 12 == 0xB)
                if not sent.acknowledged:
                    comment = str(status.get("ErrorComment", ""))
                    sent.reason = f"{code:04X} {comment}" if code is not None else "no answer"
            except ValueError:
                sent.reason = "presentation context refused"
            yield sent
        assoc.release()


def send_stow(http: urllib3.PoolManager, base: str, files: Sequence[Sent]) -> Iterator[Sent]:
    """STOW-RS in requests of some files; yields each file when it is answered."""
    for at in range(0, len(files), STOW_FILES):
        batch = files[at : at + STOW_FILES]
        part = b"\r\n--" + SEPARATOR.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(part + s.path.read_bytes() for s in batch) + b"\r\n--" + SEPARATOR.encode() + b"--\r\n"
        answer = http.request(
            "POST",
            f"{base}/dicom-web/studies",
            body=body,
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={SEPARATOR}',
                "Accept": "application/dicom+json",
            },
        )
        # Only these statuses come with a Store Instances Response Module (PS3.18 Table 10.5.3-1).
        stored, failed = _stow_answer(answer.data if answer.status in (200, 202, 409) else b"{}")
        for sent in batch:
            sent.acknowledged = stored[sent.sop] > 0
            stored[sent.sop] -= 1
            if not sent.acknowledged:
                reasons = failed[sent.sop] or failed[""]
                sent.reason = reasons.pop(0) if reasons else f"HTTP {answer.status}"
            yield sent


def _stow_answer(body: bytes) -> tuple[Counter[str], dict[str, list[str]]]:
    """(SOP UID → times stored, SOP UID → FailureReasons in hex) of a STOW-RS response (PS3.18 §10.5.3)."""
    answer = json.loads(body)
    stored = Counter(_value(item, "00081155") for item in answer.get("00081199", {}).get("Value", ()))
    failed: dict[str, list[str]] = defaultdict(list)
    # FailedSOPSequence, and OtherFailuresSequence for what has no SOP Instance UID.
    for item in (*answer.get("00081198", {}).get("Value", ()), *answer.get("0008119A", {}).get("Value", ())):
        failed[_value(item, "00081155")].append(f"{int(_value(item, '00081197') or 0):04X}")
    return stored, failed


def _value(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])


# ------------------------------------------------------------------------------------------------ steps 2 to 5


class Client:
    """A plain DICOMweb and API client of one archive."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=120))

    def json(self, path: str) -> Any:
        """Parsed answer of a GET; an empty list for 204 and 404."""
        answer = self.http.request(
            "GET", self.base + path, headers={"Accept": "application/dicom+json, application/json"}
        )
        if answer.status in (204, 404):
            return []
        if answer.status != 200:
            raise click.ClickException(f"GET {path} answered {answer.status}")
        return json.loads(answer.data)

    def original(self, sent: Sent) -> bytes:
        """The stored Part 10 file of an instance."""
        path = f"/dicom-web/studies/{sent.study}/series/{sent.series}/instances/{sent.sop}/original"
        answer = self.http.request("GET", self.base + path, headers={"Accept": "application/dicom"})
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
        series, instances = int(_value(rows[0], "00201206")), int(_value(rows[0], "00201208"))
        outcome.series, outcome.instances = outcome.series + series, outcome.instances + instances
        found = _instances(client, study)
        if instances != len(found):
            outcome.faults.append(f"study {study}: 00201208 says {instances}, there are {len(found)}")
        if series != len(client.pages(f"/dicom-web/studies/{study}/series")):
            outcome.faults.append(f"study {study}: 00201206 says {series}, which is not the number of its series")


def _instances(client: Client, study: str) -> set[str]:
    return {_value(row, "00080018") for row in client.pages(f"/dicom-web/studies/{study}/instances")}


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
        headers={"Content-Type": "application/fhir+json"},
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
    client = Client(f"http://{settings.http_host}:{settings.http_port}")
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
            sending = send_dimse(settings, files) if door == "C-STORE" else send_stow(client.http, client.base, files)
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
        f"a browser    {base}/   and the API's documents at {base}/docs\n"
        f"curl         curl '{base}/dicom-web/studies?limit=3'",
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
