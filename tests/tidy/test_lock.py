"""The lock answers to pyproject.toml, and names no place to get anything from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "infra/stack/requirements.lock").read_text(encoding="utf-8")


def test_every_requirement_is_pinned_to_a_version_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(t for extra in project["optional-dependencies"].values() for t in extra)]
    pinned = {canonicalize_name(n): v for n, v in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", LOCK, re.M)}
    for requirement in map(Requirement, texts):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in the lock: make lock"
        assert requirement.specifier.contains(version), f"{requirement} against {version}: make lock"


def test_every_pin_has_checksums_and_no_address() -> None:
    assert "://" not in LOCK
    pins = re.split(r"^(?=\w)", LOCK, flags=re.M)[1:]
    assert len(pins) > 50
    assert all("--hash=sha256:" in pin for pin in pins)
