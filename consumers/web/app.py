"""The pages: what `sijil.http` composes into the HTTP door for people."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from consumers.web.faces import Faces
from consumers.web.frame import Frame
from consumers.web.routes import (
    administrator,
    arrivals,
    correcting,
    criticals,
    deliveries,
    emergency,
    home,
    identities,
    inbox,
    invitations,
    links,
    login,
    officer,
    orders,
    own,
    patients,
    peers,
    reading,
    staff,
    studies,
    times,
    verify,
    waiting,
)
from infra.http_door import HttpDoor


def register(app: FastAPI, door: HttpDoor) -> None:
    """Add the pages to the door."""
    frame = Frame(app, door.settings)
    everyone = (home, links, own, verify)
    of_the_staff = (
        inbox,
        orders,
        reading,
        arrivals,
        studies,
        correcting,
        patients,
        administrator,
        peers,
        identities,
        staff,
        waiting,
        deliveries,
        criticals,
        times,
        officer,
        emergency,
        invitations,
    )
    for pages in (*everyone, *of_the_staff):
        pages.add(frame)
    door.identity.form = partial(login.form, frame)
    app.add_middleware(Faces, frame=frame)
