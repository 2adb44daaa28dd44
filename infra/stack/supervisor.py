"""One supervisor owns all children: starts them in order, waits until each answers, restarts what dies, ends them.

Order of a start (each step waits for the one before):
1. claim the home, end what a killed supervisor left, check ports, disk, memory
2. the servers, in parallel: prepare → process → probe until ready → finish (passwords, durable settings)
3. migrations
4. workers and doors, in parallel
Order of a stop: doors, workers, servers; each stage SIGTERM, its deadline, SIGKILL.

Everything slow (probes, Maven, migrations) runs on threads; children are made by the main thread alone, because the
kernel's death signal (see `launch`) follows the thread that forked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType

from infra import telemetry
from infra.settings import ENV_PREFIX, Settings
from infra.stack import credentials, host, logs, process, state
from infra.stack.errors import NotReady, StackError
from infra.stack.parts import DOORS, PARTS, SERVERS, WORKERS, Part, external
from infra.stack.process import Identity
from infra.stack.state import PartState, RunFolder, StackState
from schemas.errors import SijilError

log = telemetry.logger(__name__)

START_DEADLINE_S = 180.0
"""A part that does not answer for so long at the first start ends the start."""
FIRST_START_DEATHS = 3
"""So many deaths before it was ever ready end the start as well."""
BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 60.0
"""After so long without dying, back-off starts anew."""
PROBE_EVERY_S = 5.0
TICK_S = 0.1

Announce = Callable[[PartState], None]


class Child:
    """One part and where it is on its way: a small state machine that `step` moves on."""

    def __init__(self, part: Part, settings: Settings, run: RunFolder, pool: ThreadPoolExecutor, born: float) -> None:
        self.part, self.settings, self.run, self.pool, self.born = part, settings, run, pool, born
        self.shown = PartState(part.name, part.port(settings))
        self.process: subprocess.Popen[bytes] | None = None
        self.identity: Identity | None = None
        self._task: Future[None] | None = None
        self._next = 0.0
        self._started = 0.0
        self._deaths = 0

    @property
    def ready(self) -> bool:
        """Whether it has answered since its last start."""
        return self.shown.health in ("ready", "failing")

    def step(self, now: float, environment: Mapping[str, str]) -> bool:
        """Do what is due; whether `shown` changed. Raises StackError when a first start cannot succeed."""
        before = (self.shown.health, self.shown.pid, self.shown.why, self.shown.restarts)
        if self.process is not None and self.process.poll() is not None:
            self._died(now, self.process.returncode)
        elif self._task is not None and self._task.done():
            task, self._task = self._task, None
            self._after(task.exception(), now, environment)
        elif self._task is None and now >= self._next:
            self._due(now)
        return before != (self.shown.health, self.shown.pid, self.shown.why, self.shown.restarts)

    def _due(self, now: float) -> None:
        if self.process is None:
            if self.shown.health != "restarting":
                self.shown.health = "preparing"
            self._task = self.pool.submit(self.part.prepare, self.settings)
        else:
            self._task = self.pool.submit(self.part.probe, self.settings)

    def _after(self, error: BaseException | None, now: float, environment: Mapping[str, str]) -> None:
        if self.process is None:  # prepare is over
            if error is not None:
                raise error
            self._spawn(now, environment)
        elif self.shown.health == "finishing":
            if isinstance(error, NotReady):
                self.shown.health = "starting"
            elif error is not None:
                raise error
            else:
                self._ready(now)
        elif error is None and self.shown.health == "starting":
            self.shown.health = "finishing"
            self._task = self.pool.submit(self.part.finish, self.settings)
        elif error is None:
            self._ready(now)
        elif isinstance(error, NotReady):
            self._not_ready(str(error), now)
        else:
            raise error

    def _spawn(self, now: float, environment: Mapping[str, str]) -> None:
        self.run.pid_file(self.part.name).unlink(missing_ok=True)
        self.process = process.spawn(
            self.part.command(self.settings),
            pid_file=self.run.pid_file(self.part.name),
            log_file=logs.path(self.settings.home, self.part.name),
            environment=environment,
            folder=self.settings.home,
        )
        self.identity = process.identity(self.process.pid)
        self.shown.pid, self.shown.health, self.shown.why = self.process.pid, "starting", ""
        self._started, self._next = now, now + 0.2
        log.info("part.started", part=self.part.name, pid=self.process.pid)

    def _ready(self, now: float) -> None:
        self._next = now + PROBE_EVERY_S
        if self.shown.ready_s is None:
            self.shown.ready_s = round(now - self.born, 1)
        if self.shown.health != "ready":
            log.info("part.ready", part=self.part.name, seconds=round(now - self._started, 1))
        self.shown.health, self.shown.why = "ready", ""

    def _not_ready(self, why: str, now: float) -> None:
        self.shown.why = why
        if self.ready:
            self.shown.health, self._next = "failing", now + 1.0
            return
        self._next = now + 0.2
        if self.shown.ready_s is None and now - self._started > START_DEADLINE_S:
            raise StackError(
                f"{self.part.name} does not answer after {START_DEADLINE_S:.0f} s ({why}): see"
                f" `sijil logs {self.part.name}`"
            )

    def _died(self, now: float, status: int) -> None:
        self._deaths = 1 if now - self._started > STEADY_S else self._deaths + 1
        delay = BACK_OFF_S[min(self._deaths, len(BACK_OFF_S)) - 1]
        told = f"signal {-status}" if status < 0 else f"status {status}"
        log.warning("part.died", part=self.part.name, exit_status=status, delay_s=delay, attempt=self._deaths)
        self.process, self.identity, self._task = None, None, None
        self._next = now + delay
        self.shown.pid, self.shown.health, self.shown.why = None, "restarting", f"ended with {told}"
        self.shown.restarts += 1
        if self.shown.ready_s is None and self._deaths >= FIRST_START_DEATHS:
            last = logs.last_line(self.settings.home, self.part.name)
            raise StackError(f"{self.part.name} ends with {told} at its start: {last} (`sijil logs {self.part.name}`)")


class Supervisor:
    """Runs the chosen parts until told to stop."""

    def __init__(
        self,
        settings: Settings,
        parts: Sequence[Part],
        given: Mapping[str, str],
        announce: Announce = lambda shown: None,
    ) -> None:
        """`given`: what of the settings is written down for the other commands of this home, by environment name."""
        self._settings, self._parts, self._given, self._announce = settings, parts, given, announce
        self._run = RunFolder(settings.home)
        self._stop = False

    def run(self, serving: Callable[[], None] = lambda: None) -> None:
        """Start, call `serving` once all is ready, supervise until SIGTERM or SIGINT, stop.

        Raises StackError if it could not start; nothing is left running then.
        """
        # Step 1
        self._run.claim()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        shown = StackState(os.getpid(), "starting", [])
        self._run.write(shown)
        pool = ThreadPoolExecutor(len(self._parts) + 1, "stack")
        children: list[Child] = []
        try:
            if left := state.end_children(self._run, stop_order(PARTS)):
                log.warning("stack.cleaned", part=",".join(left))
            host.check(self._settings, self._parts)
            state.write_stack_env(self._settings, self._given)
            credentials.ensure(self._settings.home)
            born = time.monotonic()
            children += [Child(p, self._settings, self._run, pool, born) for p in self._parts]
            shown.parts = [c.shown for c in children]
            self._run.write(shown)
            self._supervise(children, shown, pool, serving)
        except SijilError as e:
            shown.failure = str(e)
            raise
        finally:
            shown.phase = "stopping"
            self._end(children, shown)
            pool.shutdown(wait=False, cancel_futures=True)
            shown.phase = "failed" if shown.failure else "stopped"
            self._run.write(shown)
            self._run.release()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _supervise(
        self, children: list[Child], shown: StackState, pool: ThreadPoolExecutor, serving: Callable[[], None]
    ) -> None:
        environment = child_environment(self._settings)
        servers = [c for c in children if c.part.stage == SERVERS]
        rest = [c for c in children if c.part.stage != SERVERS]
        migration: Future[None] | None = None
        look = 0.0
        while not self._stop:
            now = time.monotonic()
            # Step 2
            active = list(servers)
            # Step 3
            if migration is None and all(c.ready for c in servers):
                migration = pool.submit(migrate, self._settings, self._parts, environment)
            # Step 4
            if migration is not None and migration.done():
                migration.result()
                active += rest
            changed = [c for c in active if c.step(now, environment)]
            for c in changed:
                self._announce(c.shown)
            done = migration is not None and migration.done() and all(c.ready for c in children)
            if shown.phase == "starting" and done:
                shown.phase = "serving"
                self._run.write(shown)
                serving()
            elif changed:
                self._run.write(shown)
            if now >= look:
                logs.rotate(self._settings.home)
                look = now + 5.0
            time.sleep(TICK_S)

    def _end(self, children: Sequence[Child], shown: StackState) -> None:
        for stage in (DOORS, WORKERS, SERVERS):
            here = [c for c in children if c.part.stage == stage and c.identity is not None]
            for c in here:
                c.shown.health = "stopping"
            self._run.write(shown)
            for who in process.end({c.identity: c.part.stop_s for c in here if c.identity}):
                log.warning("part.killed", pid=who.pid)
            for c in here:
                if c.process is not None:
                    c.process.wait()
                c.shown.health, c.shown.pid = "stopped", None
                self._run.pid_file(c.part.name).unlink(missing_ok=True)
                self._announce(c.shown)


def stop_order(parts: Sequence[Part]) -> list[list[tuple[str, float]]]:
    """(part, seconds until SIGKILL), stage by stage."""
    return [[(p.name, p.stop_s) for p in parts if p.stage == stage] for stage in (DOORS, WORKERS, SERVERS)]


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of every child: ours, and where home is."""
    return {**os.environ, f"{ENV_PREFIX}HOME": str(settings.home), "PYTHONUNBUFFERED": "1"}


def migrate(settings: Settings, parts: Sequence[Part], environment: Mapping[str, str]) -> None:
    """`sijil migrate` in a process of its own, so that the supervisor holds no driver. Raises StackError.

    Not done when a local server is left out (`up --only kafka`): there would be nothing to migrate there.
    """
    here = {p.name for p in parts}
    if any(p.name not in here and not external(settings, p.name) for p in PARTS if p.stage == SERVERS):
        return
    with logs.path(settings.home, "migrate").open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", "migrate"], env=dict(environment), stdout=file, stderr=file, check=False
        )
    if done.returncode:
        last = logs.last_line(settings.home, "migrate").removeprefix("sijil: ")
        raise StackError(last or "the migration failed: see `sijil logs migrate`")
