"""`sijil import`: folders, files, ZIPs and DICOMDIR media to the STOW-RS door, as any client would send them.

What was stored, or refused for what it is, is remembered by path, size and time of change, so that the same command
goes on where it was interrupted. Names of files go to the terminal and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from infra import clock
from infra.identity.minting import authorization
from infra.settings import Settings
from producers.media import Look, Source, find, look
from producers.refusals import OUT_OF_RESOURCES, PROCESSING_FAILURE, REFUSALS
from producers.stow.answer import IMPORT_AGENT
from schemas.errors import Transient
from schemas.roles import Role

REQUEST_BYTES_MAX = 64 << 20
REQUEST_FILES_MAX = 50
CHUNK = 1 << 18
BOUNDARY = "sijil-import-part"
TOKEN_S = 1800.0
"""A token is used so long; it is good for twice that."""
TIMEOUT_S = 300.0
AWAY_S = 600.0
"""How long an archive that is away or full is waited for, each time."""
DELAY_S = (1.0, 15.0)
SHOWN_MAX = 20
"""Files of each reason that the summary names."""

_REASONS = {told.status: reason for reason, told in REFUSALS.items()}
UNTOLD = "untold"
"""An answer to several files does not say what became of this one."""
UNREADABLE = "unreadable"
"""A source that could not be read to its end."""
_TRY_AGAIN = (OUT_OF_RESOURCES, PROCESSING_FAILURE)


@dataclass
class Summary:
    """What became of everything."""

    stored: int = 0
    known: int = 0
    """Done by an earlier run."""
    skipped: Counter[str] = field(default_factory=Counter)
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Reason → labels."""
    failed: dict[str, list[str]] = field(default_factory=dict)
    """Not decided: to be tried again by the next run."""

    @property
    def exit_status(self) -> int:
        """0 when everything that is DICOM is stored."""
        return 1 if self.refused or self.failed else 0


class Remembered:
    """Keys of what is decided, one a line, in a file that only grows."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lines = file.read_text().split() if file.exists() else []
        self._known = {line for line in self._lines if len(line) == 32}
        self._file = file.open("a")

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def add(self, keys: Iterable[str]) -> None:
        """Decided: not sent again."""
        self._file.write("".join(key + "\n" for key in keys))
        self._file.flush()

    def close(self) -> None:
        """Nothing more is decided."""
        self._file.close()


@dataclass(frozen=True)
class Sent:
    """One request's answer: what became of each of its sources: "" stored, else a reason; None: try again later."""

    outcomes: list[tuple[Source, str | None]]


class SourceError(Exception):
    """A source could not be read while it was sent; the archive has got half a request."""

    def __init__(self, source: Source) -> None:
        super().__init__("a file cannot be read")
        self.source = source


class Client:
    """Sends requests over one connection per thread."""

    def __init__(self, url: str, authorize: Callable[[], Mapping[str, str]] = dict) -> None:
        """`authorize` gives the headers by which a request proves who sends it; asked anew for every request."""
        self._url, self._authorize = urlsplit(url), authorize
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close every thread's connection."""
        for connection in self._connections:
            connection.close()

    def send(self, batch: list[tuple[Source, Look]]) -> Sent:
        """One request; what its answer does not tell is asked again, each by itself. Raises Transient."""
        unreadable = []
        while True:
            try:
                sent = self._send(batch) if batch else Sent([])
                break
            except SourceError as error:
                self._drop()
                unreadable.append((error.source, UNREADABLE))
                batch = [one for one in batch if one[0] is not error.source]
        sent = Sent([*sent.outcomes, *unreadable])
        if len(batch) == 1:
            return sent
        untold = {source.key for source, outcome in sent.outcomes if outcome is UNTOLD}
        alone = [self._send([one]).outcomes[0] for one in batch if one[0].key in untold]
        return Sent([o for o in sent.outcomes if o[0].key not in untold] + alone)

    def _send(self, batch: list[tuple[Source, Look]]) -> Sent:
        """One STOW-RS request, tried again while the archive is away or full; Transient when that is too long."""
        deadline, delay = clock.monotonic() + AWAY_S, DELAY_S[0]
        while True:
            try:
                status, headers, body = self._request([s for s, _ in batch])
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                status, headers, body, why = 0, {}, b"", type(error).__name__
            else:
                if status in (200, 202, 409) and body[:1] == b"{":
                    return Sent(_outcomes(batch, json.loads(body)))
                why = f"status {status}"
                if status in (401, 403):
                    raise Transient(f"the archive does not let this sender in ({why}): set SIJIL_TOKEN to its token")
                if status not in (429, 500, 502, 503, 504):
                    raise Transient(f"the archive's answer is not one of STOW-RS: {why}")
            if clock.monotonic() > deadline:
                raise Transient(f"the archive does not take anything: {why}")
            time.sleep(min(float(headers.get("retry-after", delay)), DELAY_S[1]))
            delay = min(2 * delay, DELAY_S[1])

    def _request(self, sources: list[Source]) -> tuple[int, dict[str, str], bytes]:
        head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"--{BOUNDARY}--\r\n".encode()
        length = sum(len(head) + s.size + 2 for s in sources) + len(tail)
        connection = self._connection()
        connection.putrequest("POST", f"{self._url.path}/studies")
        connection.putheader("Content-Type", f'multipart/related; type="application/dicom"; boundary={BOUNDARY}')
        connection.putheader("Content-Length", str(length))
        connection.putheader("Accept", "application/dicom+json")
        connection.putheader("User-Agent", IMPORT_AGENT)
        for name, value in self._authorize().items():
            connection.putheader(name, value)
        connection.endheaders()
        for source in sources:
            connection.send(head)
            for chunk in _chunks(source):
                connection.send(chunk)
            connection.send(b"\r\n")
        connection.send(tail)
        answer = connection.getresponse()
        body = answer.read()
        if answer.will_close:
            self._drop()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
            found = self._local.connection = kind(self._url.hostname or "", self._url.port, timeout=TIMEOUT_S)
            self._connections.append(found)
        return found

    def _drop(self) -> None:
        found = getattr(self._local, "connection", None)
        if found is not None:
            found.close()
            self._connections.remove(found)
            self._local.connection = None


def _chunks(source: Source) -> Iterator[bytes]:
    """Exactly as many bytes as the source had when it was found."""
    left = source.size
    try:
        with source.open() as f:
            while left and (chunk := f.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(source) from error
    if left:
        raise SourceError(source)  # it became shorter


def _outcomes(batch: list[tuple[Source, Look]], answer: dict[str, Any]) -> list[tuple[Source, str | None]]:
    """The answer tells instances by their UIDs, of which a batch has each once; one without is among the unnamed."""
    stored = {_uid(i) for i in _items(answer, "00081199")}
    failed = {_uid(i): _reason(i) for i in _items(answer, "00081198")}
    unnamed = {_reason(i) for i in _items(answer, "0008119A")}
    if len(batch) == 1:
        reasons = {*failed.values(), *unnamed}
        return [(batch[0][0], "" if stored else next(iter(reasons), None))]
    (rest,) = unnamed if len(unnamed) == 1 else (UNTOLD,)
    return [(s, "" if seen.sop_uid in stored else failed.get(seen.sop_uid, rest)) for s, seen in batch]


def _items(answer: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer.get(tag, {}).get("Value", [])
    return found


def _uid(item: dict[str, Any]) -> str:
    return str(item["00081155"]["Value"][0])


def _reason(item: dict[str, Any]) -> str | None:
    code = int(item["00081197"]["Value"][0])
    return None if code in _TRY_AGAIN else _REASONS.get(code, f"{code:04X}")


def batches(sources: Iterable[tuple[Source, Look]]) -> Iterator[list[tuple[Source, Look]]]:
    """Requests of bounded size, in none of which a UID comes twice."""
    batch: list[tuple[Source, Look]] = []
    size, uids = 0, set[str]()
    for source, seen in sources:
        too_much = len(batch) >= REQUEST_FILES_MAX or size + source.size > REQUEST_BYTES_MAX
        if batch and (too_much or seen.sop_uid in uids):
            yield batch
            batch, size, uids = [], 0, set()
        batch.append((source, seen))
        size += source.size
        if seen.sop_uid:
            uids.add(seen.sop_uid)
    if batch:
        yield batch


def run(sources: list[Source], client: Client, remembered: Remembered, jobs: int, progress: Progress) -> Summary:
    """Send everything that is not known yet. Raises Transient when the archive is away for too long."""
    summary = Summary()
    task = progress.add_task("", total=sum(s.size for s in sources), files=0, of=len(sources))

    def done(source: Source) -> None:
        progress.update(task, advance=source.size, files=progress.tasks[task].fields["files"] + 1)

    def to_send() -> Iterator[tuple[Source, Look]]:
        for source in sources:
            if source.key in remembered:
                summary.known += 1
            else:
                try:
                    seen = look(source)
                except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
                    summary.failed.setdefault(UNREADABLE, []).append(source.label)
                else:
                    if not seen.reason:
                        yield source, seen
                        continue
                    summary.skipped[seen.reason] += 1
                    remembered.add([source.key])
            done(source)

    def settle(sent: Sent) -> None:
        for source, outcome in sent.outcomes:
            if outcome is None or outcome == UNREADABLE:
                summary.failed.setdefault(outcome or "not decided", []).append(source.label)
            elif outcome:
                summary.refused.setdefault(outcome, []).append(source.label)
            else:
                summary.stored += 1
            done(source)
        remembered.add(source.key for source, outcome in sent.outcomes if outcome not in (None, UNREADABLE))

    with ThreadPoolExecutor(jobs) as pool:
        under_way: set[Future[Sent]] = set()
        waiting: deque[Future[Sent]] = deque()
        for batch in batches(to_send()):
            under_way.add(pool.submit(client.send, batch))
            while len(under_way) > jobs:
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                waiting.extend(finished)
                while waiting:
                    settle(waiting.popleft().result())
        for future in under_way:
            settle(future.result())
    return summary


def show(summary: Summary, seconds: float, console: Console) -> None:
    """The summary as tables."""
    console.print(f"stored {summary.stored} in {seconds:.1f} s; known from before {summary.known}; ", end="")
    console.print(f"passed over, no instances: {sum(summary.skipped.values())}")
    for title, found in (("refused", summary.refused), ("not sent or not decided", summary.failed)):
        if not found:
            continue
        grid = Table("reason", title=title, title_justify="left", box=None, pad_edge=False)
        grid.add_column("files", overflow="fold")
        for reason, labels in sorted(found.items()):
            more = f"\n… and {len(labels) - SHOWN_MAX} more" if len(labels) > SHOWN_MAX else ""
            grid.add_row(f"{reason} ({len(labels)})", "\n".join(labels[:SHOWN_MAX]) + more)
        console.print(grid, markup=False)


class Renewed:
    """The header of a sender, made anew before its token expires: an import may take days."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: tuple[float, Mapping[str, str]] = (float("-inf"), {})

    def __call__(self) -> Mapping[str, str]:
        """Raises nothing: without a token the archive says what is needed."""
        if self._made[0] + TOKEN_S < clock.monotonic():
            self._made = clock.monotonic(), authorization(self._settings, Role.GATEWAY)
        return self._made[1]


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--url", default="", help="DICOMweb address of the archive. Default: this installation's.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 16), help="Requests at the same time.")
@click.option("--again", is_flag=True, help="Send also what an earlier run has stored or seen refused.")
def command(paths: tuple[Path, ...], url: str, jobs: int, again: bool) -> None:
    """Import DICOM files: folders, single files, ZIPs, or a disc by its DICOMDIR.

    May be interrupted and called again: it goes on where it was. Exit status 0 if every DICOM file is stored, 1 if some
    were refused or could not be read; the summary says which and why.
    """
    settings = Settings.load("operator")
    ours = f"http://{settings.http_host}:{settings.http_port}/dicom-web"
    url = url or ours
    state = settings.home / "data" / "import" / f"{urlsplit(url).netloc.replace(':', '_')}.done"
    if again:
        state.unlink(missing_ok=True)
    console = Console(highlight=False)
    started = time.monotonic()
    with console.status("looking for files"):
        sources = list(find(list(paths)))
    counted = TextColumn("{task.fields[files]} of {task.fields[of]} files")
    columns = (counted, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    # A token of this installation's issuer is for this installation alone
    authorize = Renewed(settings) if url == ours or settings.token else dict
    remembered, client = Remembered(state), Client(url, authorize)
    try:
        with Progress(*columns, console=console) as progress:
            summary = run(sources, client, remembered, jobs, progress)
    finally:
        remembered.close()
        client.close()
    show(summary, time.monotonic() - started, console)
    sys.exit(summary.exit_status)
