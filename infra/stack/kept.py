"""A folder that is made once, and anew when what it is made of has changed; several stacks may share it."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def once(folder: Path, wanted: str, make: Callable[[Path], Path]) -> Path:
    """`folder`, whose `dist` is what `make(work)` gave for `wanted`. Nothing is replaced when it raises."""
    if version(folder) == wanted:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.with_name(f"{folder.name}.lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if version(folder) != wanted:
            with tempfile.TemporaryDirectory(dir=folder) as work:
                made = make(Path(work))
                shutil.rmtree(folder / "dist", ignore_errors=True)
                made.rename(folder / "dist")
            (folder / ".sha256").write_text(wanted, encoding="ascii")
    return folder


def version(folder: Path) -> str:
    """What `dist` was made of; empty if it is not there."""
    try:
        return (folder / ".sha256").read_text(encoding="ascii")
    except OSError:
        return ""
