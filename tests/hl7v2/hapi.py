"""HAPI HL7 v2 as a sender and as a receiver."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.jars import jars

HERE = Path(__file__).parent
JAVA = ("java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def classpath() -> str:
    """The jars, fetched where they are not, and the classes, compiled where they are not."""
    lib, sources = jars(HERE / "pom.xml"), sorted(HERE.glob("*.java"))
    classes = lib.with_name("hl7v2-classes")
    with lib.with_name("hl7v2-classes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = [classes / f"{source.stem}.class" for source in sources]
        newest = max(source.stat().st_mtime for source in sources)
        if not all(one.exists() and one.stat().st_mtime >= newest for one in made):
            classes.mkdir(exist_ok=True)
            compiled = ["javac", "-proc:none", "-d", str(classes), "-cp", f"{lib}/*", *map(str, sources)]
            subprocess.run(compiled, check=True, timeout=120)
    return f"{classes}:{lib}/*"


def send(port: int, messages: Sequence[str], folder: Path) -> list[list[str]]:
    """Each message's MSA-1, MSA-2 and, of a refusal, ERR-3."""
    files = [folder / f"{n}.hl7" for n in range(len(messages))]
    for file, message in zip(files, messages, strict=True):
        file.write_text(message, encoding="utf-8", newline="")
    command = [*JAVA, "-cp", classpath(), "Sender", str(port), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


class Receiver:
    """Takes ORU^R01 on a port of its own; killed and started again it goes on with the same file."""

    def __init__(self, folder: Path) -> None:
        self._file, self._log = folder / "taken.tsv", folder / "receiver.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, mute: bool = False) -> None:
        """Until it listens. A mute one takes what it is sent, and never answers."""
        command = [*JAVA, "-cp", classpath(), "Receiver", str(self.port), str(self._file), *(["mute"] if mute else [])]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the receiver does not start")

    def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def taken(self) -> list[list[str]]:
        """MSH-10, PID-3-1, OBR-25 and OBX-5 of each message, as HAPI read them."""
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        return [line.split("\t") for line in text.splitlines()]
