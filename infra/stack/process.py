"""Starting, finding and ending the supervisor's children, each by its pid *and* its start time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.stack import launch


@dataclass(frozen=True)
class Identity:
    """One process for all time: pids are used again, but not with the same start in the same boot."""

    pid: int
    ticks: int
    boot: str

    def alive(self) -> bool:
        """Whether this very process runs. A zombie does not, unless threads of it are left: they hold its ports."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            return False
        state, threads, ticks = fields[0], int(fields[17]), int(fields[19])
        ended = state == "X" or (state == "Z" and threads <= 1)
        return not ended and ticks == self.ticks and self.boot == launch.boot_id()


def identity(pid: int) -> Identity | None:
    """Who runs under `pid` now; None if nobody."""
    try:
        return Identity(pid, launch.start_ticks(pid), launch.boot_id())
    except OSError:
        return None


def read_pid_file(path: Path) -> Identity | None:
    """Who wrote the file; None if there is none or it cannot be read."""
    try:
        pid, ticks, boot = path.read_text(encoding="ascii").split()
        return Identity(int(pid), int(ticks), boot)
    except (OSError, ValueError):
        return None


def write_pid_file(path: Path) -> None:
    """Name this process in the file."""
    me = os.getpid()
    new = path.with_suffix(".new")
    new.write_text(f"{me} {launch.start_ticks(me)} {launch.boot_id()}\n", encoding="ascii")
    new.replace(path)


def spawn(
    command: Sequence[str], *, pid_file: Path, log_file: Path, environment: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, its output appended to `log_file`. Call it from the main thread: the
    kernel's death signal follows the thread that forked."""
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__, str(pid_file), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )


def signal_group(who: Identity, number: signal.Signals) -> None:
    """Signal a child's whole process group (it leads one), if it is still that child."""
    if not who.alive():
        return
    try:
        if os.getpgid(who.pid) == who.pid:
            os.killpg(who.pid, number)
        else:
            os.kill(who.pid, number)
    except ProcessLookupError:
        return


def end(processes: Mapping[Identity, float]) -> list[Identity]:
    """SIGTERM to all; SIGKILL to each that is left after its own number of seconds. Gives those killed."""
    begun = time.monotonic()
    left = {p: seconds for p, seconds in processes.items() if p.alive()}
    killed: list[Identity] = []
    for p in left:
        signal_group(p, signal.SIGTERM)
    while left:
        time.sleep(0.05)
        left = {p: seconds for p, seconds in left.items() if p.alive()}
        for p, seconds in left.items():
            if p not in killed and time.monotonic() - begun > seconds:
                signal_group(p, signal.SIGKILL)
                killed.append(p)
    return killed
