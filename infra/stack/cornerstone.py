"""The library with which patients see their images in the browser: cornerstone3D from npm (MIT).

It comes as a tree of modules that no browser could load one by one on a phone's line, so esbuild makes two files of it
(`bundle/`, pinned with checksums in its package-lock.json): the library, and the worker that decodes compressed images.
Beside them lie the decoders of WebAssembly, the licences of all that is in them, and everything gzipped.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

from infra.settings import Settings
from infra.stack import kept, npm
from infra.stack.errors import StackError

SOURCES = Path(__file__).with_name("bundle")
LICENCES = "licences.txt"
_SCOPE = Path("node_modules/@cornerstonejs")
ENTRIES = {
    "library": "library.js",
    "worker": str(_SCOPE / "dicom-image-loader/dist/esm/decodeImageFrameWorker.js"),
}
DECODERS = tuple(
    _SCOPE / path
    for path in (
        "codec-charls/dist/charlswasm_decode.wasm",
        "codec-libjpeg-turbo-8bit/dist/libjpegturbowasm_decode.wasm",
        "codec-openjpeg/dist/openjpegwasm_decode.wasm",
        "codec-openjph/dist/openjphjs.wasm",
    )
)
"""JPEG-LS, JPEG, JPEG 2000, HTJ2K. No JPEG XL, which the archive does not take."""
NOT_REACHED = ("crypto", "fs", "path", "xmlbuilder2")
OPTIONS = (
    "--bundle",
    "--format=esm",
    "--minify",
    "--target=es2022",
    "--log-level=error",
    "--metafile=inputs.json",
    "--outdir=dist",
    *(f"--alias:{name}=./none.cjs" for name in NOT_REACHED),
)


def install(settings: Settings) -> Path:
    """Folder with the library, made unless it is there. Raises StackError: images are then drawn by the server."""
    sources = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    wanted = hashlib.sha256(sources + repr((ENTRIES, DECODERS, OPTIONS)).encode()).hexdigest()
    return kept.once(settings.image_library, wanted, _make)


def _make(work: Path) -> Path:
    entries = [f"{name}={path}" for name, path in ENTRIES.items()]
    npm.run(SOURCES, work, ["esbuild/bin/esbuild", *entries, *OPTIONS])
    made = work / "dist"
    for decoder in DECODERS:
        shutil.copy(work / decoder, made)
    (made / LICENCES).write_text(_licences(work), encoding="utf-8")
    for path in sorted(made.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    return made


def _licences(work: Path) -> str:
    """Of each package from which anything is in the files: name, version, licence, and its text if it has one."""
    inputs = json.loads((work / "inputs.json").read_bytes())["inputs"]
    names = {_package(path) for path in (*inputs, *map(str, DECODERS))} - {""}
    parts: list[str] = []
    for name in sorted(names):
        package = work / "node_modules" / name
        about = json.loads((package / "package.json").read_bytes())
        if not about.get("license"):
            raise StackError(f"{name} names no licence: not made")
        texts = [p.read_text(encoding="utf-8") for p in sorted(package.glob("[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]*"))]
        parts.append("\n".join([f"{name} {about['version']}: {about['license']}", *texts]))
    return "\n\n".join(parts)


def _package(path: str) -> str:
    _, found, inside = path.rpartition("node_modules/")
    words = inside.split("/")
    return "/".join(words[: 2 if inside.startswith("@") else 1]) if found else ""
