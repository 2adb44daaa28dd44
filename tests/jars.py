"""Java programs that tests call, fetched by Maven once: a folder of jars for each pom.xml, under `.tools/`.

python -m tests.jars        fetch all of them (`make tools`)
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"


def jars(pom: Path) -> Path:
    """The folder with what a pom.xml names, as it is today."""
    wanted = hashlib.sha256(pom.read_bytes()).hexdigest()
    folder = TOOLS / pom.parent.name
    mark = folder / ".pom.sha256"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # both lanes of `make test` may ask
        if mark.exists() and mark.read_text(encoding="ascii") == wanted:
            return folder
        maven = shutil.which("mvn")
        assert maven, "Maven is needed to fetch the jars (Debian: apt-get install maven)"
        shutil.rmtree(folder, ignore_errors=True)
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        subprocess.run(command, check=True, timeout=900)
        mark.write_text(wanted, encoding="ascii")
    return folder


if __name__ == "__main__":
    for path in sorted((ROOT / "tests").glob("*/pom.xml")):
        jars(path)
