"""The files of cornerstone3D, with which a patient's browser shows images (`infra.stack.cornerstone` makes them).

Their address holds the version, so a phone loads them once. A page's own policy is enough for them, with one addition:
compressed images are decoded by WebAssembly, which only the worker does. A worker lives by the policy that its script
came with, so the right to compile stands there and no page has it; the worker can load and ask nothing but this origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from consumers.web.assets import PREFIX, TYPES, YEAR_S
from infra.http_problems import problem

ADDRESS = PREFIX + "cornerstone/{version}/{name}"
ENTRY, WORKER = "library.js", "worker.js"
_TYPES: Mapping[str, str] = {**TYPES, ".wasm": "application/wasm", ".txt": "text/plain; charset=utf-8"}
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"


class Library:
    """Those of a folder, as they are when this begins; none where they are not installed."""

    def __init__(self, folder: Path) -> None:
        self._files: Mapping[str, Path] = {}
        self._version = ""
        try:
            self._version = (folder / ".sha256").read_text(encoding="ascii")[:16]
            self._files = {p.name: p for p in (folder / "dist").iterdir() if p.suffix in _TYPES}
        except OSError:
            pass

    @property
    def url(self) -> str:
        """Address of the library; empty where it is not installed."""
        return ADDRESS.format(version=self._version, name=ENTRY) if ENTRY in self._files else ""

    async def serve(self, request: Request) -> Response:
        """Answer GET `ADDRESS`."""
        path = self._files.get(request.path_params["name"])
        if path is None or request.path_params["version"] != self._version:
            return problem(404, "There is no such address")
        headers = {
            "Cache-Control": f"public, max-age={YEAR_S}, immutable",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Vary": "Accept-Encoding",
        }
        if path.name == WORKER:
            headers["Content-Security-Policy"] = POLICY
        media_type = _TYPES[path.suffix]
        gzipped = path.with_name(f"{path.name}.gz")
        if "gzip" in request.headers.get("accept-encoding", "") and gzipped.exists():
            path, headers["Content-Encoding"] = gzipped, "gzip"
        return FileResponse(path, headers=headers, media_type=media_type)
