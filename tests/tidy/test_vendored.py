"""Files of others that are served with the pages are those that their packages have, byte for byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "consumers" / "web" / "static"
OWN = {"style.css", "mark.svg", "images.js", "print.js", "reading.js", "slices.js", "vendored.json"}
LICENCES = {"0BSD", "OFL-1.1"}


def test_every_file_of_others_is_the_one_that_was_looked_at() -> None:
    packages = json.loads((FOLDER / "vendored.json").read_text(encoding="utf-8"))
    files: dict[str, dict[str, str]] = {}
    for package in packages:
        assert package["licence"] in LICENCES
        assert package["integrity"].startswith("sha512-")
        assert (FOLDER / package["licence_file"]).exists()
        files |= package["files"]
    for name, about in files.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == about["sha256"], name
    there = {p.name for p in FOLDER.iterdir()}
    assert there == set(files) | OWN | {p["licence_file"] for p in packages}


def test_they_are_light() -> None:
    """What a first look on 2 Mbit/s waits for: fonts of one script are asked for only where it is shown."""
    sizes = {p.name: p.stat().st_size for p in FOLDER.iterdir()}
    assert sum(sizes.values()) < 250_000
    assert sizes["style.css"] < 20_000
