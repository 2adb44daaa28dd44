"""The pages' static files: their names hold their content's hash, so a browser asks for each version once.

`style.css` names the fonts beside it; these names are replaced by the hashed ones before it is hashed itself. Text is
kept gzipped too. HTML is not compressed: with a token and what somebody typed in one answer, its length would tell
(BREACH).
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from infra.http_problems import problem

FOLDER = Path(__file__).with_name("static")
PREFIX = "/static/"
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
TEXTS = frozenset({".css", ".js", ".svg"})
YEAR_S = 365 * 24 * 3600
_URL = re.compile(rb"url\(([a-z0-9.-]+)\)")


@dataclass(frozen=True)
class Asset:
    """A file as it is served."""

    name: str
    """With the hash: `style.0123456789abcdef.css`."""
    media_type: str
    content: bytes
    gzipped: bytes
    """Empty where it would not be shorter."""


class Assets:
    """All of a folder, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._by_plain: dict[str, Asset] = {}
        paths = sorted(p for p in folder.iterdir() if p.suffix in TYPES)
        for path in sorted(paths, key=lambda p: p.suffix == ".css"):  # style sheets last: they name the others
            content = path.read_bytes()
            if path.suffix == ".css":
                content = _URL.sub(self._hashed, content)
            self._by_plain[path.name] = _asset(path, content)
        self._by_hashed = {a.name: a for a in self._by_plain.values()}

    def _hashed(self, found: re.Match[bytes]) -> bytes:
        return b"url(" + self._by_plain[found[1].decode()].name.encode() + b")"

    def url(self, name: str) -> str:
        """Address of a file by its plain name. Raises KeyError for one that is not there."""
        return PREFIX + self._by_plain[name].name

    async def serve(self, request: Request) -> Response:
        """Answer GET `/static/{name}`."""
        asset = self._by_hashed.get(request.path_params["name"])
        if asset is None:
            return problem(404, "There is no such address")
        headers = {
            "Cache-Control": f"public, max-age={YEAR_S}, immutable",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Vary": "Accept-Encoding",
        }
        content = asset.content
        if asset.gzipped and "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["Content-Encoding"] = asset.gzipped, "gzip"
        return Response(content, headers=headers, media_type=asset.media_type)


def _asset(path: Path, content: bytes) -> Asset:
    digest = hashlib.sha256(content).hexdigest()[:16]
    gzipped = gzip.compress(content, 9, mtime=0) if path.suffix in TEXTS else b""
    name = f"{path.stem}.{digest}{path.suffix}"
    return Asset(name, TYPES[path.suffix], content, gzipped if len(gzipped) < len(content) else b"")
