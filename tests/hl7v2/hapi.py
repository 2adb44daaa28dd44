"""HAPI HL7 v2 as a sender.

`python -m tests.hl7v2.hapi` fetches its jars (Maven) and compiles it; `make test` does so beside other work.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "hl7v2"


def installed() -> Path:
    """Where the jars and the class are; fetched and compiled where they are not."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    source, pom, made = HERE / "Sender.java", HERE / "pom.xml", TOOLS / "classes" / "Sender.class"
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.stat().st_mtime < max(source.stat().st_mtime, pom.stat().st_mtime):
            maven = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
            subprocess.run([*maven, f"-DoutputDirectory={TOOLS / 'lib'}"], check=True, timeout=600)
            (TOOLS / "classes").mkdir(exist_ok=True)
            compiled = ["javac", "-proc:none", "-d", str(made.parent), "-cp", f"{TOOLS}/lib/*", str(source)]
            subprocess.run(compiled, check=True, timeout=120)
    return TOOLS


def send(port: int, messages: Sequence[str], folder: Path) -> list[list[str]]:
    """Each message's MSA-1, MSA-2 and, of a refusal, ERR-3."""
    home = installed()
    files = [folder / f"{n}.hl7" for n in range(len(messages))]
    for file, message in zip(files, messages, strict=True):
        file.write_text(message, encoding="utf-8", newline="")
    command = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{home}/classes:{home}/lib/*", "Sender"]
    done = subprocess.run(
        [*command, str(port), *map(str, files)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


if __name__ == "__main__":
    installed()
