"""`sijil import PATH...`: folders, files, ZIPs and DICOMDIR media into the archive, through its STOW-RS door.

A file goes these steps:
1. found, and looked at: what cannot be DICOM is skipped (a CD has viewers and icons on it)
2. sent alone, as application/dicom, so that the answer is about it and nothing else
3. its outcome is noted in `<home>/import/<name>.jsonl`

An import that was stopped is begun again by the same command: what the notes say was accepted is not sent again, as
long as size and time of the file are the same. A file sent twice all the same (a stop between 2 and 3) is the archive's
recorded no-op.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import click
import msgspec
import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.settings import Settings
from producers.refusals import REFUSALS
from producers.stow.app import IMPORT_AGENT
from schemas.errors import Permanent, SijilError, Transient

SENDERS = 4
BUSY_TRIES = 60
"""How often a busy or restarting archive is asked again before the import gives up; some minutes."""
BUSY_WAIT_S = 5.0
MEMBER_MAX = 16 << 30
"""Longest member of a ZIP that is unpacked; more is a bomb or a mistake."""
EXAMPLES = 3

ACCEPTED, REFUSED, SKIPPED = "accepted", "refused", "skipped"
_STATUS_WORDS: dict[int, str] = {refusal.status: reason for reason, refusal in REFUSALS.items()}


@dataclass(frozen=True)
class Item:
    """A file on disk, or a member of a ZIP (`member`)."""

    path: Path
    size: int
    changed: float
    member: str = ""

    @property
    def name(self) -> str:
        """What the notes and the operator's screen call it."""
        return f"{self.path}!{self.member}" if self.member else str(self.path)


@dataclass
class Summary:
    """What became of everything."""

    accepted: int = 0
    accepted_bytes: int = 0
    before: int = 0
    """Accepted by an earlier run."""
    skipped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, item: Item, reason: str) -> None:
        """Count a file that the archive did not take."""
        self.refused[reason] += 1
        names = self.examples.setdefault(reason, [])
        if len(names) < EXAMPLES:
            names.append(item.name)


# ------------------------------------------------------------------------------------------------ step 1: find


def find(paths: Iterable[Path]) -> Iterator[Item]:
    """Everything below the paths, in order: files, and members of ZIPs. Raises Permanent for a path that is none."""
    for path in paths:
        if not path.exists():
            raise Permanent(f"there is no {path}")
        if path.is_dir():
            for folder, folders, files in os.walk(path):
                folders.sort()
                for name in sorted(files):
                    yield from _file(Path(folder) / name)
        elif path.name.upper() == "DICOMDIR":
            yield from find([path.parent])  # the medium: what the directory lists lies beside it
        else:
            yield from _file(path)


def _file(path: Path) -> Iterator[Item]:
    try:
        stat = path.stat()
    except OSError:  # a link into nowhere
        return
    if not path.is_file():
        return
    if not zipfile.is_zipfile(path):
        yield Item(path, stat.st_size, stat.st_mtime)
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Item(path, info.file_size, stat.st_mtime, info.filename)


def looks_like_dicom(head: bytes, name: str) -> bool:
    """Whether the archive should judge it: Part 10, or a bare dataset that begins with group 0002 or 0008."""
    if name.upper().endswith("DICOMDIR"):
        return False
    return head[128:132] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00")


def open_item(item: Item) -> IO[bytes]:
    """Its bytes. Raises Permanent for a member that cannot be unpacked."""
    if not item.member:
        return item.path.open("rb")
    if item.size > MEMBER_MAX:
        raise Permanent("zip-member-too-large")
    try:
        return _zip(item.path).open(item.member)
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as e:  # encrypted, unknown method, damaged
        raise Permanent("zip-member-unreadable") from e


@lru_cache(maxsize=4)
def _zip(path: Path) -> zipfile.ZipFile:
    """Opened once: its directory may have many thousands of members. Members may be read by several threads."""
    return zipfile.ZipFile(path)


# ------------------------------------------------------------------------------------------------ steps 2 and 3


class Notes:
    """Outcomes of one import, a line each; what was accepted is remembered by name, size and time. Thread-safe."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._accepted: set[tuple[str, int, float]] = set()
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    note = json.loads(line)
                except ValueError:  # torn by a stop
                    continue
                if note["outcome"] == ACCEPTED:
                    self._accepted.add((note["name"], note["size"], note["changed"]))
        self._file = path.open("a", encoding="utf-8")
        path.chmod(0o600)  # names of files are often names of people
        self._lock = threading.Lock()

    def has(self, item: Item) -> bool:
        """Whether an earlier run brought it in."""
        return (item.name, item.size, item.changed) in self._accepted

    def add(self, item: Item, outcome: str, reason: str) -> None:
        """Note an outcome."""
        note = {"name": item.name, "size": item.size, "changed": item.changed, "outcome": outcome, "reason": reason}
        with self._lock:
            self._file.write(json.dumps(note, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Door:
    """The STOW-RS door. Thread-safe."""

    def __init__(self, base: str) -> None:
        self._url = f"{base}/dicom-web/studies"
        self._http = urllib3.PoolManager(maxsize=SENDERS, retries=False, timeout=urllib3.Timeout(connect=5, read=600))

    def send(self, item: Item) -> tuple[str, str]:
        """(outcome, reason). Raises Transient when the archive stays away or busy."""
        for _ in range(BUSY_TRIES):
            try:
                with open_item(item) as body:
                    head = body.read(132)
                    if not looks_like_dicom(head, item.name):
                        return SKIPPED, "not-dicom"
                with open_item(item) as body:
                    answer = self._post(body, item.size)
            except Permanent as error:
                return REFUSED, str(error)
            except (OSError, zipfile.BadZipFile):
                return REFUSED, "cannot-be-read"
            except urllib3.exceptions.HTTPError:
                time.sleep(BUSY_WAIT_S)
                continue
            if answer.status == 503:
                time.sleep(min(float(answer.headers.get("Retry-After", BUSY_WAIT_S)), 60.0))
                continue
            return (ACCEPTED, "") if answer.status == 200 else (REFUSED, _reason(answer))
        raise Transient(
            "the archive does not answer, or has been busy for too long: see `sijil status`, then run it again"
        )

    def _post(self, body: IO[bytes], size: int) -> urllib3.BaseHTTPResponse:
        headers = {
            "Content-Type": "application/dicom",
            "Content-Length": str(size),
            "Accept": "application/dicom+json",
            "User-Agent": IMPORT_AGENT,
        }
        return self._http.request("POST", self._url, body=body, headers=headers)


def _reason(answer: urllib3.BaseHTTPResponse) -> str:
    """The archive's word for a refusal, as in the event `study.instance-rejected`; else its HTTP status."""
    try:
        document: dict[str, Any] = msgspec.json.decode(answer.data)
        failed = document.get("00081198") or document["0008119A"]
        code = int(failed["Value"][0]["00081197"]["Value"][0])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError):
        return f"http-{answer.status}"
    return _STATUS_WORDS.get(code) or f"{code:04X}"


def bring(items: list[Item], door: Door, notes: Notes, progress: Progress) -> Summary:
    """Send all items, some at a time. Raises Transient when the archive stays away; what was done is noted."""
    summary = Summary()
    files = progress.add_task("files", total=len(items))
    todo = iter(items)
    under_way: dict[Future[tuple[str, str]], Item] = {}
    with ThreadPoolExecutor(SENDERS) as pool:
        while True:
            while len(under_way) < 2 * SENDERS and (item := next(todo, None)) is not None:
                if notes.has(item):
                    summary.before += 1
                    progress.advance(files)
                else:
                    under_way[pool.submit(door.send, item)] = item
            if not under_way:
                return summary
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                item = under_way.pop(future)
                outcome, reason = future.result()
                notes.add(item, outcome, reason)
                progress.advance(files)
                if outcome == ACCEPTED:
                    summary.accepted += 1
                    summary.accepted_bytes += item.size
                elif outcome == SKIPPED:
                    summary.skipped += 1
                else:
                    summary.refuse(item, reason)


def show(summary: Summary, console: Console) -> None:
    """The summary an operator reads."""
    console.print(
        f"accepted {summary.accepted} files, {summary.accepted_bytes / 1e6:.1f} MB;"
        f" {summary.before} were accepted before; {summary.skipped} are not DICOM and were skipped;"
        f" {summary.refused.total()} refused"
    )
    if summary.refused:
        table = Table("reason", "files", "for example", title="Refused", title_justify="left")
        for reason, count in summary.refused.most_common():
            table.add_row(reason, str(count), "\n".join(summary.examples[reason]))
        console.print(table, markup=False)
        console.print("their bytes are in the archive's quarantine folder; GET /rejections?day=YYYYMMDD lists them")


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--again", is_flag=True, help="Send also what an earlier import of these paths has brought in.")
def command(paths: tuple[Path, ...], again: bool) -> None:
    """Bring studies in: folders, single files, ZIPs, CDs with a DICOMDIR.

    Stop it whenever you like and run the same command again: it goes on where it was. Exit status 1 if anything was
    refused.
    """
    settings = Settings.load("operator")
    console = Console(highlight=False)
    places = sorted({p.absolute() for p in paths})
    name = hashlib.sha256("\0".join(map(str, places)).encode()).hexdigest()[:16]
    file = settings.home / "import" / f"{name}.jsonl"
    if again:
        file.unlink(missing_ok=True)
    items = list(find(places))
    host = "127.0.0.1" if settings.http_host in ("", "0.0.0.0") else settings.http_host  # noqa: S104  compared, not bound
    notes = Notes(file)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            summary = bring(items, Door(f"http://{host}:{settings.http_port}"), notes, progress)
    except SijilError as error:
        raise click.ClickException(str(error)) from error
    finally:
        notes.close()
    show(summary, console)
    if summary.refused:
        raise SystemExit(1)
