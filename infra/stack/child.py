"""One child on its way: preparing → starting → finishing → ready ⇄ failing; dead → restarting → starting.

`step` is called by the main loop and does not wait: what is slow (installing, probing, setting up) runs on a pool.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from infra import telemetry
from infra.settings import Settings
from infra.stack import logs, probes, process
from infra.stack.errors import NotReady, StackError
from infra.stack.parts import Part
from infra.stack.process import Identity
from infra.stack.state import PartState, RunFolder

log = telemetry.logger(__name__)

START_DEADLINE_S = 180.0
"""A part that does not answer for so long at the first start ends the start."""
FIRST_START_DEATHS = 3
"""So many deaths before it was ever ready end the start as well."""
BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 60.0
"""After so long without dying, back-off starts anew."""
PROBE_EVERY_S = 5.0
PROBE_AGAIN_S = 0.2
"""While it is not ready."""
HANG_S = 60.0
"""A process of ours that fails for so long and is not live either is ended, and so started again."""


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
        self._failing_since = 0.0
        self._deaths = 0

    @property
    def ready(self) -> bool:
        """Whether it has answered since its last start."""
        return self.shown.health in ("ready", "failing")

    def step(self, now: float, environment: Mapping[str, str]) -> bool:
        """Do what is due; whether `shown` changed. Raises what keeps a first start from succeeding."""
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
        elif self.shown.health == "failing" and self.identity and now - self._failing_since > HANG_S:
            self._failing_since = now
            self._task = self.pool.submit(self._end_if_not_live, self.identity)
        else:
            self._task = self.pool.submit(self.part.probe, self.settings)

    def _after(self, error: BaseException | None, now: float, environment: Mapping[str, str]) -> None:
        """A task is over: go on to the next state, or try again."""
        if error is not None and not isinstance(error, NotReady):
            if self.shown.ready_s is None:
                raise error
            log.error("part.failing", part=self.part.name, error=error)
        if error is not None:
            self._not_ready(error, now)
        elif self.process is None:
            self._spawn(now, environment)
        elif self.shown.health == "starting":
            self.shown.health = "finishing"
            self._task = self.pool.submit(self.part.finish, self.settings)
        else:
            self._ready(now)

    def _end_if_not_live(self, who: Identity) -> None:
        """Its probe fails: a process of ours that says it is not live, or nothing at all, hangs."""
        port = self.part.health_port(self.settings)
        if port is not None and not probes.live(self.part.health_host(self.settings), port):
            log.warning("part.hangs", part=self.part.name, pid=who.pid)
            process.end({who: self.part.stop_s})

    def _spawn(self, now: float, environment: Mapping[str, str]) -> None:
        self.run.pid_file(self.part.name).unlink(missing_ok=True)
        self.process = process.spawn(
            self.part.command(self.settings),
            pid_file=self.run.pid_file(self.part.name),
            log_file=logs.path(self.settings.home, self.part.name),
            environment={**environment, **self.part.environment},
            folder=self.part.folder(self.settings),
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

    def _not_ready(self, error: BaseException, now: float) -> None:
        self.shown.why = str(error) if isinstance(error, NotReady | StackError) else type(error).__name__
        self._next = now + (PROBE_AGAIN_S if self.process is not None else BACK_OFF_S[-1])
        if self.shown.health == "ready":
            self.shown.health, self._failing_since = "failing", now
        elif self.shown.health == "finishing":
            self.shown.health = "starting"
        if self.shown.ready_s is None and now - self._started > START_DEADLINE_S:
            raise StackError(
                f"{self.part.name} does not answer after {START_DEADLINE_S:.0f} s ({self.shown.why}): see"
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
