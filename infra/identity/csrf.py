"""Tokens against cross-site request forgery: an HMAC over the session, for forms that change something.

The door's perimeter refuses what another origin sends; this holds also where a browser says no origin.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from starlette.requests import Request

from schemas.errors import Forbidden

FIELD: Final = "csrf"


def token(request: Request) -> str:
    """For a hidden field FIELD of a form; empty where no session is at stake (a bearer token, the loopback role)."""
    session: str = request.scope.get("state", {}).get("session", "")
    if not session:
        return ""
    secret: bytes = request.app.state.session_secret
    return hmac.new(secret, b"csrf" + session.encode(), hashlib.sha256).hexdigest()


def check(request: Request, given: str) -> None:
    """Raises Forbidden(`csrf`) for a form that is not of this session."""
    if not hmac.compare_digest(given.encode(), token(request).encode()):
        raise Forbidden("csrf", "this form is not of your session: load the page again")
