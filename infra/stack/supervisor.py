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
from infra.identity import seed
from infra.settings import ENV_PREFIX, Settings
from infra.stack import credentials, host, logs, process, state
from infra.stack.child import Child
from infra.stack.errors import StackError
from infra.stack.parts import DOORS, PARTS, SERVERS, WORKERS, Part, external
from infra.stack.state import PartState, RunFolder, StackState
from schemas.errors import SijilError

log = telemetry.logger(__name__)

TICK_S = 0.1
CALM_TICK_S = 0.3
"""Once all serve."""

Announce = Callable[[PartState], None]


class Supervisor:
    """Runs the chosen parts until told to stop."""

    def __init__(
        self,
        settings: Settings,
        parts: Sequence[Part],
        given: Mapping[str, str],
        announce: Announce = lambda shown: None,
        *,
        migrating: bool = True,
    ) -> None:
        """`given`: what of the settings is written down for the other commands of this home, by environment name."""
        self._settings, self._parts, self._given, self._announce = settings, parts, given, announce
        self._migrating = migrating
        self._run = RunFolder(settings.home)
        self._migration: subprocess.Popen[bytes] | None = None
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
            seed.ensure(self._settings)
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
            if self._migration is not None:
                self._migration.terminate()
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
                migration = pool.submit(self._migrate, environment)
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
            time.sleep(TICK_S if shown.phase == "starting" else CALM_TICK_S)

    def _migrate(self, environment: Mapping[str, str]) -> None:
        """`sijil migrate` in a process of its own, so that the supervisor holds no driver. Raises StackError.

        Not done when a local server is left out (`up --only kafka`): there would be nothing to migrate there.
        """
        here = {p.name for p in self._parts}
        absent = [
            p for p in PARTS if p.stage == SERVERS and p.name not in here and not external(self._settings, p.name)
        ]
        if absent or not self._migrating:
            return
        with logs.path(self._settings.home, "migrate").open("ab") as file:
            command = [sys.executable, "-m", "infra.cli", "migrate"]
            self._migration = subprocess.Popen(command, env=dict(environment), stdout=file, stderr=file)
            status = self._migration.wait()
        if status:
            last = logs.last_line(self._settings.home, "migrate").removeprefix("sijil: ")
            raise StackError(last or "the migration failed: see `sijil logs migrate`")

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
    """The environment of every child: ours, where home is, and glibc's heaps kept from growing one per thread."""
    return {
        **os.environ,
        f"{ENV_PREFIX}HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",
    }
