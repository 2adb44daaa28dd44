"""The viewer (OHIF) on a port of its own: its files, and beside them the archive's DICOMweb.

One origin for both: what the browser holds for this origin (the session of a single sign-on in front, a client
certificate) goes along with every image request, and no other origin can ask. The page is isolated from others (COOP
and COEP), may load and call nothing but this origin (CSP), and keeps no image: only files whose name holds their
content's hash are cached for long.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.http_caller import Gate
from infra.http_door import HttpDoor
from infra.http_problems import problem
from schemas.errors import SijilError, Unauthenticated

CONFIG = Path(__file__).with_name("app-config.js")
BEHIND = ("/dicom-web/", "/login", "/logout", "/oidc/", "/web/", "/static/")
"""What the archive itself answers on this port too, so that the page stays within one origin."""
_HASHED = re.compile(r"(^|\.)[0-9a-f]{16}\.(js|css|wasm|woff2)$")
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
"""Scripts inside index.html: allowed by their hashes."""
YEAR_S = 365 * 24 * 3600

HEADERS: Mapping[str, str] = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' {scripts}; worker-src 'self' blob:;"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:;"
    " connect-src 'self' blob: data:; manifest-src 'self'; frame-src 'self' blob:; object-src 'none';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def register(app: FastAPI, door: HttpDoor) -> None:
    """Give the door's second port to the viewer."""
    settings = door.settings
    door.front(settings.viewer_port, lambda behind: Viewer(settings.viewer / "dist", behind, door.gate))


class Viewer:
    """ASGI: files of `folder`; DICOMweb and the log-in by `behind`. Any other path is a place within the page:
    index.html, for who has a session; others log in first.
    """

    def __init__(self, folder: Path, behind: ASGIApp, gate: Gate) -> None:
        self._folder, self._behind, self._gate = folder, behind, gate
        self._files = StaticFiles(directory=folder, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(BEHIND):
            await self._behind(scope, receive, send)
            return
        response = await self._response(scope)
        response.headers.update(HEADERS)
        await response(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return problem(405, "This method is not allowed here", headers={"Allow": "GET, HEAD"})
        path: str = scope["path"].lstrip("/")
        if path == CONFIG.name:
            return FileResponse(CONFIG, headers={"Cache-Control": "no-cache"}, media_type="text/javascript")
        found: Response | None = None
        if path not in ("", "index.html"):
            try:
                found = await self._files.get_response(path, scope)
            except HTTPException:
                if "." in path.rpartition("/")[2]:
                    return problem(404, "There is no such address")
        if found is None:
            if not await self._known(scope):
                return RedirectResponse(login_first(scope), 303, {"Cache-Control": "no-store"})
            path = "index.html"
            try:
                found = await self._files.get_response(path, scope)
            except HTTPException:
                return problem(503, "The viewer is not installed", "`make stack` installs it, where npm can be reached")
        hashed = _HASHED.search(path.rpartition("/")[2])
        found.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable" if hashed else "no-cache"
        # On every file: a worker lives by the policy that its own script came with.
        found.headers["Content-Security-Policy"] = self._policy
        return found

    async def _known(self, scope: Scope) -> bool:
        """Whether anybody is logged in. A session that cannot be looked up now is for the images to tell."""
        scope.setdefault("state", {})
        try:
            return await self._gate.identify(scope) is not None
        except Unauthenticated:
            return False
        except SijilError:
            return True

    @cached_property
    def _policy(self) -> str:
        page = (self._folder / "index.html").read_bytes()
        digests = (base64.b64encode(hashlib.sha256(s).digest()).decode() for s in _INLINE.findall(page))
        return _POLICY.format(scripts=" ".join(f"'sha256-{d}'" for d in digests))


def login_first(scope: Scope) -> str:
    """Where somebody without a session goes, and from there back."""
    query = scope["query_string"].decode("latin-1")
    return f"/login?back={quote(scope['path'] + (f'?{query}' if query else ''), safe='')}"
