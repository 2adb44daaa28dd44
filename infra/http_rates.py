"""How often one caller may ask the HTTP door: 429 with Retry-After beyond that.

| class | whose | setting | for example |
|---|---|---|---|
| stores | a caller's | `SIJIL_RATE_STORES` | STOW-RS: one request may be one instance |
| changes | a caller's | `SIJIL_RATE_CHANGES` | reports, corrections, people |
| reads | a caller's | `SIJIL_RATE_READS` | QIDO-RS, WADO-RS, pages |
| anonymous | an address' | `SIJIL_RATE_ANONYMOUS` | the way to the login, what has no caller |
| logins | an address' | `SIJIL_RATE_LOGINS` | what nobody in particular posts: passwords, codes, tokens |

A caller is counted by who they are, wherever they call from: a hospital's users behind one address do not take each
other's turns. `/health/` is never refused, nor is this machine's own `local` role.
"""

from __future__ import annotations

import math

from starlette.types import ASGIApp, Receive, Scope, Send

from infra import clock, telemetry
from infra.http_caller import address_of
from infra.http_problems import problem
from infra.rates import Buckets
from infra.settings import Settings
from schemas.caller import Caller
from schemas.roles import Role

REFUSED = telemetry.Counter("sijil_http_rate_refused", "Requests refused for being too many, by class", ["rate"])
FREE = "/health/"
STORE = "/dicom-web/studies"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Rates:
    """ASGI: inside of what says who calls (`scope["state"]["caller"]`)."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._buckets = {
            "stores": Buckets(settings.rate_stores),
            "changes": Buckets(settings.rate_changes),
            "reads": Buckets(settings.rate_reads),
            "anonymous": Buckets(settings.rate_anonymous),
            "logins": Buckets(settings.rate_logins),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _counted(scope)
        wait_s = self._buckets[found[0]].take(found[1], clock.monotonic()) if found else 0.0
        if found is None or not wait_s:
            await self._app(scope, receive, send)
            return
        REFUSED.labels(found[0]).inc()
        headers = {"Retry-After": str(math.ceil(wait_s))}
        if scope["method"] not in SAFE:
            headers["Connection"] = "close"  # its body is not read
        await problem(429, "Too many requests", reason=f"rate-{found[0]}", headers=headers)(scope, receive, send)


def _counted(scope: Scope) -> tuple[str, str] | None:
    """(class, key) of a request; None if it is not counted."""
    state = scope.get("state", {})
    if scope["type"] != "http" or "caller" not in state or scope["path"].startswith(FREE):
        return None
    safe = scope["method"] in SAFE
    caller: Caller | None = state["caller"]
    if caller is None:
        return "anonymous" if safe else "logins", address_of(scope)
    if caller.role is Role.LOCAL:
        return None
    if safe:
        return "reads", caller.actor
    return "stores" if scope["path"].startswith(STORE) else "changes", caller.actor
