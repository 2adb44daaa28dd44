"""The parts' logs: `<home>/logs/PART.log`, at most two files of LIMIT bytes each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LIMIT = 20 << 20


def path(home: Path, part: str) -> Path:
    """The log a part's output is appended to."""
    folder = home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{part}.log"


def rotate(home: Path, limit: int = LIMIT) -> None:
    """Copy a log that has grown over `limit` bytes to `PART.log.1` and empty it.

    The writer keeps its open file (in append mode), which needs no word to any server; lines written between copying
    and emptying are lost.
    """
    for log in (home / "logs").glob("*.log"):
        if log.stat().st_size > limit:
            shutil.copyfile(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)


def last_line(home: Path, part: str) -> str:
    """The last line that is not empty, at most 300 characters; empty if there is none."""
    try:
        with path(home, part).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line[:300] for line in reversed(lines) if line), "")
