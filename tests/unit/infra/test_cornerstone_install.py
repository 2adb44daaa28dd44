"""The library of a patient's images is made once, of what the lock file pins, with the licences of what is in it."""

from __future__ import annotations

import gzip
import json
import re
import stat
from pathlib import Path

import pytest

from infra.settings import Settings
from infra.stack import cornerstone
from infra.stack.errors import StackError

MAKES = {
    "npm": """for f in {decoders}; do /bin/mkdir -p "$(/usr/bin/dirname $f)"; echo wasm >$f; done
for p in core codec-charls codec-libjpeg-turbo-8bit codec-openjpeg codec-openjph; do
  /bin/mkdir -p node_modules/@cornerstonejs/$p
  echo '{{"version": "1.0", "license": "{licence}"}}' >node_modules/@cornerstonejs/$p/package.json
done
echo 'may be used' >node_modules/@cornerstonejs/core/LICENSE.md
""",
    "node": """/bin/mkdir dist
echo 'the library' >dist/library.js
echo 'the worker' >dist/worker.js
echo '{{"inputs": {{"library.js": {{}}, "node_modules/@cornerstonejs/core/index.js": {{}}}}}}' >inputs.json
""",
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """npm and node that do as the true ones would; `ran` says with what."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write(folder, "MIT")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write(folder: Path, licence: str) -> None:
    for name, text in MAKES.items():
        did = text.format(decoders=" ".join(map(str, cornerstone.DECODERS)), licence=licence)
        (folder / name).write_text(f"#!/bin/sh\nset -e\necho {name} $* >>{folder}/ran\n{did}")
        (folder / name).chmod(stat.S_IRWXU)


def test_it_is_made_once_and_gzipped(programs: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for _ in range(2):
        folder = cornerstone.install(settings)
    npm, node = (programs / "ran").read_text().splitlines()
    assert npm.startswith("npm ci --ignore-scripts")
    assert "node_modules/esbuild/bin/esbuild library=library.js worker=node_modules/" in node
    names = {p.name for p in (folder / "dist").iterdir()}
    plain = {"library.js", "worker.js", "licences.txt", *(p.name for p in cornerstone.DECODERS)}
    assert names == plain | {f"{name}.gz" for name in plain}
    assert gzip.decompress((folder / "dist" / "library.js.gz").read_bytes()) == b"the library\n"
    licences = (folder / "dist" / "licences.txt").read_text(encoding="utf-8")
    assert "@cornerstonejs/core 1.0: MIT\nmay be used" in licences
    assert "@cornerstonejs/codec-openjpeg 1.0: MIT" in licences


def test_without_a_licence_nothing_is_made(programs: Path, tmp_path: Path) -> None:
    write(programs, "")
    with pytest.raises(StackError, match="names no licence"):
        cornerstone.install(Settings(home=tmp_path))
    assert not (tmp_path / "viewer" / "cornerstone" / "dist").exists()


def test_every_package_is_pinned_by_its_checksum_and_may_be_shipped() -> None:
    lock = json.loads((cornerstone.SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: about for name, about in lock["packages"].items() if name}
    assert len(packages) > 20
    for name, about in packages.items():
        assert about["integrity"].startswith("sha512-"), name
        assert "resolved" not in about, f"{name}: whose registry it is, is npm's to know"
        assert not re.search(r"\bA?GPL", about.get("license", "")), name
