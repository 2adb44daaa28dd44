"""Tells the DICOM door what the archive has committed."""

from consumers.committed import ReadModels
from consumers.dicom import services
from infra.dicom_door import DicomDoor


def register(door: DicomDoor) -> None:
    """Give the door its port to the read models."""
    room = services.of(door)
    door.committed = ReadModels(room.loop.call, room.room.views, door.log)
