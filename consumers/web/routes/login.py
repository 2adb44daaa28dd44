"""The log-in form of the embedded issuer, in the pages' look. With another OIDC provider, its own form is shown."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from consumers.web.frame import Frame
from consumers.web.language import OPTION, other
from infra.identity.form import LoginForm


def form(frame: Frame, request: Request, asked: LoginForm, status: int) -> Response:
    """The form, again with what was wrong."""
    view = frame.view(request)
    switch = other(view.language)
    return view.render(
        "login.html",
        status=status,
        action=asked.action,
        hidden=asked.hidden,
        user=asked.username,
        fault=asked.error,
        # What was posted is no address to come back to
        switch_url=f"{asked.action}?{urlencode({**asked.hidden, OPTION: switch.code})}",
    )
