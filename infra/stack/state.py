"""What the supervisor says about itself, in `<home>/run/`: for `status`, for `down`, and for the next `up`."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.settings import Settings, read_env_file
from infra.stack import process
from infra.stack.errors import StackError
from infra.stack.process import Identity


@dataclass
class PartState:
    """One part as `status` shows it. `health` is one of waiting, preparing, starting, ready, failing, restarting,
    stopping, stopped; `why` is the probe's or the exit's word, empty when ready."""

    name: str
    port: int
    pid: int | None = None
    health: str = "waiting"
    why: str = ""
    restarts: int = 0
    ready_s: float | None = None
    """Seconds from the supervisor's start to its first readiness."""


@dataclass
class StackState:
    """The whole stack. `phase`: starting, serving, stopping, stopped, failed; `failure` is the line that says why."""

    pid: int
    """The supervisor that says so."""
    phase: str
    parts: list[PartState]
    failure: str = ""


class RunFolder:
    """`<home>/run`: a lock, one pid file per process, `state.json`."""

    def __init__(self, home: Path) -> None:
        self.path = home / "run"
        self.path.mkdir(parents=True, exist_ok=True)
        self.supervisor_pid_file = self.path / "supervisor.pid"
        self._state = self.path / "state.json"
        self._lock: int | None = None

    def pid_file(self, part: str) -> Path:
        """Where a part's child writes who it is."""
        return self.path / f"{part}.pid"

    def claim(self) -> None:
        """Become this home's only supervisor until the process ends. Raises StackError if there is one."""
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            os.close(lock)
            who = process.read_pid_file(self.supervisor_pid_file)
            pid = f" (pid {who.pid})" if who else ""
            raise StackError(f"the stack of {self.path.parent} is up already{pid}: `sijil down` ends it") from e
        self._lock = lock
        process.write_pid_file(self.supervisor_pid_file)

    def release(self) -> None:
        """Let the next supervisor in."""
        self.supervisor_pid_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def supervisor(self) -> Identity | None:
        """The supervisor that runs now."""
        who = process.read_pid_file(self.supervisor_pid_file)
        return who if who and who.alive() else None

    def children(self) -> dict[str, Identity]:
        """Every part that runs, also after its supervisor is gone."""
        found = {f.stem: process.read_pid_file(f) for f in self.path.glob("*.pid") if f.stem != "supervisor"}
        return {name: who for name, who in found.items() if who and who.alive()}

    def write(self, state: StackState) -> None:
        """Replace state.json."""
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        new.replace(self._state)

    def read(self) -> StackState | None:
        """The last state written; None if there is none, or if another version of Sijil wrote it."""
        try:
            data = json.loads(self._state.read_text(encoding="utf-8"))
            return StackState(**{**data, "parts": [PartState(**p) for p in data["parts"]]})
        except (OSError, ValueError, LookupError, TypeError):
            return None


def end_children(run: RunFolder, stages: Sequence[Sequence[tuple[str, float]]]) -> list[str]:
    """End what runs by its pid files, stage by stage: (part, seconds until SIGKILL). Gives the names of who ran.

    Parts that no stage names (of another version of Sijil) are ended last.
    """
    running = run.children()
    named = {name for stage in stages for name, _ in stage}
    rest = [(name, 30.0) for name in running if name not in named]
    for stage in (*stages, rest):
        process.end({running[name]: seconds for name, seconds in stage if name in running})
    for name in running:
        run.pid_file(name).unlink(missing_ok=True)
    return sorted(running)


def write_stack_env(settings: Settings, given: Mapping[str, str]) -> None:
    """Keep what `up` was started with, so that other commands of this home find the same ports."""
    path = settings.home / "stack.env"
    merged = {**read_env_file(path), **given}
    path.write_text("".join(f"{k}={v}\n" for k, v in sorted(merged.items())), encoding="utf-8")
