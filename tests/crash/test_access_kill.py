"""Eight readers and three workstations while Kafka and both doors are killed: no answer with patient data is without
its event, and counts agree.

Both sides are counted: the answers by who got them, the events by reading the log.
"""

from __future__ import annotations

import gc
import logging
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from infra import clock
from infra.kafka import KafkaLog
from infra.settings import Settings
from schemas.envelope import decode
from schemas.events import AccessGranted, AccessUsed
from tests.archive import Archive, wait_until
from tests.bench.corpus import Instance, make_ct
from tests.crash.dimse_readers import MODELS, Workstation, receiving
from tests.local_stack import LocalStack

pytestmark = [
    pytest.mark.connected,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

READERS = 8
STUDIES, SLICES = 3, 4
PURPOSES = ("TREAT", "ETREAT", "CAREMGT", "PATSFTY")
ACCESS = "Sijil-Access-Id"


@dataclass
class Reader:
    """Asks for one thing after the other and notes what came, by the id of the access event."""

    base: str
    studies: list[list[Instance]]
    seed: int
    stop: threading.Event
    answered: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    """Answers of which a part came."""
    searches: dict[str, set[str]] = field(default_factory=dict)
    """Access id → studies that the answer showed."""
    unanswered: int = 0
    """Requests of which nobody knows whether an answer was on its way."""
    refused: Counter[int] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._read()
        except BaseException as e:  # noqa: BLE001 - told by the test's own thread
            self.failure = e

    def _read(self) -> None:
        chance = random.Random(self.seed)  # noqa: S311 - no secret
        with httpx.Client(base_url=self.base, timeout=30) as client:
            while not self.stop.is_set():
                instance = chance.choice(chance.choice(self.studies))
                self._ask(client, chance.choice(_paths(instance)), chance.choice(PURPOSES))

    def _ask(self, client: httpx.Client, path: str, purpose: str) -> None:
        accept = "application/dicom+json" if "?" in path or path.endswith("metadata") else "*/*"
        access_id = ""
        try:
            with client.stream("GET", path, headers={"Accept": accept, "Sijil-Purpose-Of-Use": purpose}) as answer:
                if answer.status_code != 200:
                    self.refused[answer.status_code] += 1
                    time.sleep(0.05)
                    return
                access_id = answer.headers[ACCESS]
                content = answer.read()
        except httpx.ConnectError:  # nobody was there to ask
            time.sleep(0.05)
            return
        except httpx.HTTPError:
            if access_id:
                self.cut[access_id] += 1
            else:
                self.unanswered += 1
            time.sleep(0.05)
            return
        self.answered[access_id] += 1
        if "?" in path:
            rows = httpx.Response(200, content=content).json()
            self.searches[access_id] = {row["0020000D"]["Value"][0] for row in rows}
        elif accept == "*/*":
            self.bytes[access_id] += len(content)


def _paths(instance: Instance) -> tuple[str, ...]:
    study = f"/dicom-web/studies/{instance.study}"
    one = f"{study}/series/{instance.series}/instances/{instance.sop}"
    return study, f"{study}/metadata", one, f"{one}/frames/1", f"/dicom-web/studies?StudyInstanceUID={instance.study}"


def events_of(settings: Settings, since_ms: int) -> tuple[dict[str, AccessGranted], dict[str, AccessUsed]]:
    """Grants and counts by access id; an event that is there twice is one (`ce_id`)."""
    log = KafkaLog(settings)
    try:
        start = log.since("sijil.accesses", since_ms)
        stored = list(log.read("sijil.accesses", start, log.ends("sijil.accesses")))
    finally:
        log.close()
    found = [decode("sijil.accesses", s.key, s.headers, s.value) for s in stored]
    events = {e.id: e.event for e in found}.values()
    granted = [e for e in events if isinstance(e, AccessGranted)]
    used = [e for e in events if isinstance(e, AccessUsed)]
    return {e.access_id: e for e in granted}, {e.access_id: e for e in used}


def of_stations(station: Workstation, granted: dict[str, AccessGranted], used: dict[str, AccessUsed]) -> None:
    """What a workstation was given and what the log says of it: not one more, and no more than was under way beyond."""
    mine = [e for e in granted.values() if (e.actor.split("@")[0], e.action) == (f"ae:{station.title}", station.action)]
    events: Counter[str] = Counter()
    for event in mine:
        if station.action == "query":  # each answer is an event
            events.update(s.study_uid for s in event.shown)
        else:  # a window, whose uses are counted
            assert event.study_uid is not None
            events[event.study_uid] += used[event.access_id].uses if event.access_id in used else 0
    came = station.answered + station.cut
    assert came
    assert not came - events, f"{station.action}: an answer without its event"
    assert (events - came).total() <= station.unanswered, f"{station.action}: an event without a request"


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    # What pynetdicom logs of a killed peer holds its socket until the session ends
    logger = logging.getLogger("pynetdicom")
    logger.setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        yield stack
    logger.setLevel(logging.NOTSET)
    # It leaves such sockets to the garbage collector, which complains
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.mark.timeout(300)
def test_no_answer_without_its_event(archive: Archive, whole: LocalStack, tmp_path: Path, closing: ExitStack) -> None:
    archive.wait_ready()
    studies = make_ct(tmp_path, studies=STUDIES, slices=SLICES, seed=time.time_ns() // 1000 % 10**9, rows=128)
    assert archive.stow([i.path.read_bytes() for s in studies for i in s]).status_code == 200
    for study in studies:
        wait_until(lambda uid=study[0].study: archive.instance_count(uid) == SLICES, 60, "found")  # type: ignore[misc]
    began = clock.now()
    stop = threading.Event()
    readers = [Reader(archive.base, studies, n, stop) for n in range(READERS)]
    receiver = closing.enter_context(receiving("KILLDEST"))
    added = whole.sijil("ae", "add", receiver.title, "127.0.0.1", str(receiver.port))
    assert added.returncode == 0, added.stderr
    uids = [s[0].study for s in studies]
    stations = [
        Workstation(action, f"KILL{n}", archive.settings, uids, stop, receiver if action == "dicom-move" else None)
        for n, action in enumerate(MODELS)
    ]
    threads = [threading.Thread(target=run) for run in (*(r.run for r in readers), *(s.run for s in stations))]

    def answers() -> int:
        return sum(r.answered.total() for r in readers)

    def each(count: int, what: str) -> None:
        """So many more answers to every workstation."""
        wanted = [(s, s.answered.total() + count) for s in stations]
        wait_until(lambda: all(s.answered.total() >= least for s, least in wanted), 90, what)

    def more(count: int, what: str) -> None:
        before = answers()
        wait_until(lambda: answers() >= before + count, 60, what)

    for t in threads:
        t.start()
    try:
        more(100, "the readers are under way")
        each(3, "the workstations are under way")
        kafka = archive.kill("kafka")
        more(100, "the archive answers without Kafka")
        each(2, "and the DICOM door")
        wait_until(lambda: archive.parts()["kafka"].pid not in (None, kafka), 60, "kafka is back")
        more(50, "and with it")
        api = archive.kill("api")
        wait_until(lambda: archive.parts()["api"].pid not in (None, api), 60, "the api is back")
        gateway = archive.kill("gateway")
        wait_until(lambda: archive.parts()["gateway"].pid not in (None, gateway), 60, "the gateway is back")
        more(100, "the readers go on")
        each(3, "and the workstations")
    finally:
        stop.set()
        for t in threads:
            t.join(60)
    failures = [*(r.failure for r in readers), *(s.failure for s in stations)]
    assert [f for f in failures if f] == []
    archive.wait_ready()

    # The windows that are still open are closed by killing both once more: the next process finds their counts.
    killed = {part: archive.kill(part) for part in ("api", "gateway")}
    for part, pid in killed.items():
        wait_until(lambda p=part, was=pid: archive.parts()[p].pid not in (None, was), 60, f"{part} is back")  # type: ignore[misc]
    archive.wait_ready()
    for part in killed:
        wait_until(lambda p=part: archive.parts()[p].chain_backlog == 0, 60, f"the outbox of {part} is drained")  # type: ignore[misc]

    granted, used = events_of(whole.settings("operator"), round(began.timestamp() * 1000))
    for station in stations:
        of_stations(station, granted, used)
    answered: Counter[str] = sum((r.answered for r in readers), Counter())
    cut: Counter[str] = sum((r.cut for r in readers), Counter())
    searches = {id: shown for r in readers for id, shown in r.searches.items()}
    unanswered = sum(r.unanswered for r in readers)
    assert sum((r.refused for r in readers), Counter()).keys() <= {503}
    assert unanswered <= 2 * READERS, "of each, what was under way when the api was killed, or stood in line"
    assert set(answered) | set(cut) <= set(granted), "an answer without its event"
    assert {i.study for s in studies for i in s} == {u for shown in searches.values() for u in shown}
    for id, shown in searches.items():
        assert {s.study_uid for s in granted[id].shown} == shown, "a search's event names what it showed"
        assert (answered[id], id in used) == (1, False)

    read = {id: n for id, n in (answered + cut).items() if id not in searches}
    assert set(read) <= set(used)
    beyond = {id: used[id].uses - read.get(id, 0) for id in used if id in granted and granted[id].study_uid}
    mine = {id: n for id, n in beyond.items() if granted[id].study_uid in set(uids) and granted[id].via != "dimse"}
    assert min(mine.values()) >= 0, "an answer that was not counted"
    assert sum(mine.values()) <= unanswered, "counted without a request"
    assert {id for id, n in mine.items() if n} <= {id for id in mine if used[id].recovered}, "only what was killed"
    for id in read:
        if not used[id].recovered and granted[id].action == "retrieve":
            assert used[id].bytes == sum(r.bytes[id] for r in readers), "every byte"

    recovered = sum(u.recovered for u in used.values())
    sys.stdout.write(
        f"{', '.join(f'{s.answered.total()} {s.action} ({s.cut.total()} cut)' for s in stations)};"
        f" {answered.total()} answers, {cut.total()} cut, {unanswered} unanswered; {len(granted)} grants,"
        f" {len(used)} counts, {recovered} of them found by the next process\n"
    )
    done = whole.sijil("verify-log", "--accesses", "--since", clock.rfc3339(began))
    assert done.returncode == 0, done.stdout
    assert "none removed, changed or slipped in" in done.stdout
