"""Registers C-MOVE and C-GET at the DICOM door."""

from __future__ import annotations

from functools import partial

from pynetdicom.dimse_primitives import C_GET, C_MOVE

from consumers.dicom import services
from consumers.dicom.get import get
from consumers.dicom.move import Mover, Places
from consumers.dicom.retrieval import accept
from consumers.dicom.services import DicomRoom
from infra.dicom_door import DicomDoor
from infra.tls import Client


def register(door: DicomDoor) -> None:
    """Add retrieval to the door."""
    add(door, services.of(door))


def add(door: DicomDoor, room: DicomRoom) -> None:
    """The same in a given room."""
    settings = door.settings
    door.contexts.append(accept)
    places = Places(settings.max_outgoing_associations)
    mover = Mover(room, settings.ae_title, places, tls=Client.of(settings))
    door.requests[C_MOVE] = mover.move
    door.requests[C_GET] = partial(get, room)
