"""Around all of the HTTP door's applications: whom a request must name, where it may come from, how answers are safe.

- `Host` is one well-formed name. A door bound to this machine alone answers to this machine's names and to that of
  `SIJIL_HTTP_PUBLIC_URL`: a web page that makes its own name point to 127.0.0.1 (DNS rebinding) reads nothing.
- What changes something is refused when a browser says that another origin's page sends it (`Sec-Fetch-Site`,
  `Origin`).
- Every answer carries the headers that keep a browser from guessing types, framing, and telling others where it was. An
  answer's own headers go before these: a page states its own policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.http_caller import is_loopback
from infra.http_problems import problem
from infra.settings import Settings

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Of what is no page: a browser that shows it anyway loads and runs nothing."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none';"
    " frame-ancestors 'none'"
)
"""Of a page: everything from this origin, nothing inline."""
ALWAYS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HSTS = "max-age=31536000; includeSubDomains"
"""A year, RFC 6797; sent when the request came by https."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))(?::[0-9]{1,5})?\Z")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Perimeter:
    """ASGI: wraps what answers on any of the door's ports."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._public = _name(urlsplit(settings.http_public_url).netloc)
        self._tls_ports = (settings.https_port, settings.viewer_https_port)
        self._https = settings.http_public_url.startswith("https:")
        own = (_LOOPBACK | {self._public}) - {""}
        self._names = own if is_loopback(settings.http_host) else frozenset[str]()
        self._tls_names = own if is_loopback(settings.https_host) else frozenset[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        https = scope["scheme"] == "https" or self._https

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete(MutableHeaders(scope=message), https=https)
            await send(message)

        hosts = [v.decode("latin-1") for k, v in scope["headers"] if k == b"host"]
        names = self._tls_names if https and scope.get("server", ("", 0))[1] in self._tls_ports else self._names
        if not _answers_to(names, hosts, scope["http_version"]):
            refused = problem(
                421,
                "This door does not answer to that name",
                "set SIJIL_HTTP_PUBLIC_URL to the address under which clients reach it",
                reason="host",
                headers={"Connection": "close"},
            )
            await refused(scope, receive, safe)
        elif scope["method"] not in SAFE and _of_another_origin(scope["headers"], hosts):
            await problem(403, "Another origin's page may not do this", reason="cross-origin")(scope, receive, safe)
        else:
            await self._app(scope, receive, safe)


def _answers_to(names: frozenset[str], hosts: list[str], version: str) -> bool:
    if not hosts and version == "1.0":
        return True
    if len(hosts) != 1 or not _HOST.match(hosts[0]):
        return False
    return not names or _name(hosts[0]) in names


def _name(host: str) -> str:
    """A Host without its port, in lower case."""
    return re.sub(r":[0-9]*\Z", "", host).lower() if not host.endswith("]") else host.lower()


def _of_another_origin(headers: Iterable[tuple[bytes, bytes]], hosts: list[str]) -> bool:
    """Whether a browser says so. `Sec-Fetch-Site` is the browser's own word; an older one sends `Origin` alone."""
    found = {k: v.decode("latin-1").lower() for k, v in headers if k in (b"sec-fetch-site", b"origin")}
    if b"sec-fetch-site" in found:
        return found[b"sec-fetch-site"] not in ("same-origin", "none")
    origin = found.get(b"origin")
    return origin is not None and (not hosts or urlsplit(origin).netloc != hosts[0].lower())


def _complete(headers: MutableHeaders, *, https: bool) -> None:
    page = headers.get("content-type", "").startswith("text/html")
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", PAGE_POLICY if page else API_POLICY)
    headers.setdefault("Cache-Control", "no-store")
    if https:
        headers.setdefault("Strict-Transport-Security", HSTS)
