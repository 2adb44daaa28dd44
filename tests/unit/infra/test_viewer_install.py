"""The viewer is unpacked only if it is the one that is meant."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import tarfile
from pathlib import Path

import pytest

from infra.settings import Settings
from infra.stack import viewer
from infra.stack.errors import StackError

FILES = (
    "package/dist/index.html",
    "package/dist/ort/x.wasm",
    "package/dist/a.js.map",
    "package/LICENSE",
    "package/x.js",
)


def package(path: Path) -> str:
    """An archive as npm packs it; its integrity."""
    with tarfile.open(path, "w:gz") as tar:
        for name in (*FILES, "package/dist/../../outside"):
            member = tarfile.TarInfo(name)
            member.size = 1
            if "outside" not in name:
                tar.addfile(member, io.BytesIO(b"x"))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that gives the archive beside it; `ran` counts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\necho x >> {folder}/ran\n/bin/cp {folder}/package.tgz . || exit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_what_is_wanted_is_unpacked_once(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "INTEGRITY", package(npm / "package.tgz"))
    settings = Settings(home=tmp_path)
    for _ in range(2):
        folder = viewer.install(settings)
    assert (npm / "ran").read_text() == "x\n"
    assert sorted(str(p.relative_to(folder / "dist")) for p in (folder / "dist").rglob("*")) == [
        "LICENSE",
        "index.html",
    ]


def test_another_content_is_refused(npm: Path, tmp_path: Path) -> None:
    package(npm / "package.tgz")
    with pytest.raises(StackError, match="not the checksum expected"):
        viewer.install(Settings(home=tmp_path))
    assert not (tmp_path / "viewer" / "dist").exists()


def test_nothing_to_be_had(npm: Path, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"npm could not fetch {viewer.PACKAGE}"):
        viewer.install(Settings(home=tmp_path))
