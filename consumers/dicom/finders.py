"""Registers C-FIND at the DICOM door: one request primitive, answered by information model."""

from __future__ import annotations

from pynetdicom import evt
from pynetdicom.dimse_primitives import C_FIND

from consumers.dicom import find, services, worklist
from consumers.dicom.find import Finder
from consumers.dicom.services import DicomRoom
from consumers.dicom.worklist import Worklist
from consumers.dicom.worklist_query import MODALITY_WORKLIST
from infra.dicom_door import DicomDoor
from infra.dicom_exchange import Exchange


def register(door: DicomDoor) -> None:
    """Add queries to the door."""
    add(door, services.of(door))


def add(door: DicomDoor, room: DicomRoom) -> None:
    """The same in a given room."""
    finder, devices = Finder(room, door.settings.ae_title), Worklist(room, door.settings)
    door.contexts += [find.negotiate, worklist.negotiate]
    door.handle(evt.EVT_SOP_EXTENDED, find.extended)

    def answer(exchange: Exchange) -> None:
        asked = devices.answer if exchange.context.abstract_syntax == MODALITY_WORKLIST else finder.answer
        asked(exchange)

    door.requests[C_FIND] = answer
