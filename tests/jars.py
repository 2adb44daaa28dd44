"""Programs that tests call, fetched once, under `.tools/`: for each pom.xml a folder of jars (Maven), for each
package-lock.json one of packages (npm).

python -m tests.jars        fetch all of them (`make tools`)
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"


def jars(pom: Path) -> Path:
    """The folder with what a pom.xml names, as it is today."""

    def copy(folder: Path) -> None:
        maven = shutil.which("mvn")
        assert maven, "Maven is needed to fetch the jars (Debian: apt-get install maven)"
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        subprocess.run(command, check=True, timeout=900)

    return _fetched(pom, copy)


def packages(lock: Path) -> Path:
    """The folder whose `node_modules` has what a package-lock.json pins, each by its SHA-512."""

    def install(folder: Path) -> None:
        npm = shutil.which("npm")
        assert npm, "npm is needed to fetch the packages (Debian: apt-get install nodejs npm)"
        folder.mkdir()
        for name in ("package.json", lock.name):
            shutil.copy(lock.with_name(name), folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, check=True, timeout=300, cwd=folder)

    return _fetched(lock, install)


def _fetched(named: Path, fetch: Callable[[Path], None]) -> Path:
    """The folder of what the file `named` names; `fetch` makes it unless it is that of the file as it is today."""
    wanted = hashlib.sha256(named.read_bytes()).hexdigest()
    folder = TOOLS / named.parent.name
    mark = folder / ".fetched.sha256"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # both lanes of `make test` may ask
        if mark.exists() and mark.read_text(encoding="ascii") == wanted:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        fetch(folder)
        mark.write_text(wanted, encoding="ascii")
    return folder


if __name__ == "__main__":
    for path in sorted((ROOT / "tests").glob("*/pom.xml")):
        jars(path)
    for path in sorted((ROOT / "tests").glob("*/package-lock.json")):
        if shutil.which("npm"):
            packages(path)
