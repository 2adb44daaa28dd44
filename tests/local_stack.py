"""A real local stack for tests: a home of its own, free ports, tied to the life of the test process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.settings import Role, Settings
from infra.stack import credentials, launch, logs, parts
from infra.stack.state import RunFolder

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ("kafka", "cassandra", "seaweedfs")
SHARED = ("SIJIL_STACK_JARS", "SIJIL_STACK_VIEWER")
"""What is installed once for all stacks."""
START_S = 240.0
STOP_S = 120.0


def superuser(settings: Settings) -> Settings:
    """The same with the local broker's own user at Kafka: what no role may do, tests must be able to arrange."""
    user, password = credentials.broker(settings.home)
    return replace(settings, kafka_sasl_mechanism="PLAIN", kafka_username=user, kafka_password=password)


_given: set[int] = set()  # to stacks of this process, also to those that are down just now


def ports_are_free(ports: Iterable[int]) -> bool:
    """Whether each can be bound now."""
    for port in ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_offset() -> int:
    """A port offset under which all ports of a stack are free, below the ports the kernel gives out itself."""
    offsets = list(range(7000, 13000, 20))
    random.shuffle(offsets)
    for offset in offsets:
        settings = Settings.load("admin", {"SIJIL_PORT_OFFSET": str(offset), "SIJIL_HOME": "/nonexistent"})
        ports = {port for part in parts.PARTS for _, port in part.ports(settings)}
        if not ports & _given and ports_are_free(ports):
            _given.update(ports)
            return offset
    raise AssertionError("no free ports")


@dataclass
class LocalStack:
    """One home. `environment` is what every `sijil` command of it runs with."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    supervisor: subprocess.Popen[bytes] | None = None

    @classmethod
    def at(cls, home: Path, **settings: object) -> LocalStack:
        """A fresh home with free ports; `settings` by their names in lower case."""
        own = {k: v for k, v in os.environ.items() if not k.startswith("SIJIL_") or k in SHARED}
        # Cassandra lives for minutes here: its second compiler would cost a third of its CPU time and never pay
        own["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1"
        given: dict[str, object] = {
            "home": home,
            "port_offset": free_offset(),
            "archive_calm_s": 0.2,
            "loopback_role": "local",  # most tests are not about who calls
        }
        given |= {"stack_jars": ROOT / ".sijil" / "jars", "stack_viewer": ROOT / ".sijil" / "viewer", **settings}
        return cls(home, {**{f"SIJIL_{k.upper()}": str(v) for k, v in given.items()}, **own})

    @classmethod
    def running(cls, home: Path) -> LocalStack:
        """A stack that somebody else started and will end."""
        return cls(home, {**os.environ, "SIJIL_HOME": str(home)})

    def settings(self, role: Role, **changed: object) -> Settings:
        """What a process of `role` would load."""
        more = {f"SIJIL_{k.upper()}": str(v) for k, v in changed.items()}
        return Settings.load(role, {**self.environment, **more})

    @property
    def run(self) -> RunFolder:
        """Its run folder."""
        return RunFolder(self.home)

    def sijil(self, *words: str, changed: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A `sijil` command of this home."""
        command = [sys.executable, "-m", "infra.cli", *words]
        environment = {**self.environment, **(changed or {})}
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=self.home.parent,
        )

    def start(self, only: Sequence[str] = (), *options: str) -> LocalStack:
        """Start and wait until all is ready. The kernel ends the supervisor when this process dies."""
        self.home.mkdir(parents=True, exist_ok=True)
        words = ["up", *(["--only", ",".join(only)] if only else []), *options]
        tied = [sys.executable, "-I", "-S", launch.__file__, str(self.home / "tied.pid"), str(os.getpid())]
        with logs.path(self.home, "supervisor").open("ab") as log:
            self.supervisor = subprocess.Popen(
                [*tied, sys.executable, "-m", "infra.cli", *words], env=self.environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            state = self.run.read()
            if state and state.pid == self.supervisor.pid and state.phase == "serving":
                return self
            if self.supervisor.poll() is not None:
                raise AssertionError(f"the stack did not start: {logs.last_line(self.home, 'supervisor')}")
            time.sleep(0.1)
        self.stop()
        raise AssertionError("the stack did not start in time")

    def stop(self) -> None:
        """End it as an operator would, and see that nothing is left."""
        if self.supervisor is not None:
            self.supervisor.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.supervisor.wait(STOP_S)
            self.supervisor.kill()
            self.supervisor.wait()
            self.supervisor = None
        left = self.run.children()
        self.sijil("down")
        assert not left, f"left running: {sorted(left)}"

    def remove(self) -> None:
        """Stop and delete all its data."""
        self.stop()
        shutil.rmtree(self.home / "data", ignore_errors=True)

    def pids(self) -> Mapping[str, int]:
        """Part → pid of those that run."""
        return {name: who.pid for name, who in self.run.children().items()}
