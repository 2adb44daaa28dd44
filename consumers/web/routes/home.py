"""The first page: where somebody may go."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/", home, None)


async def home(view: View) -> Response:
    """By role; to the log-in for who has none."""
    if view.caller is None:
        return RedirectResponse("/login", 303)
    return view.render("home.html")
