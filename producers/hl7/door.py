"""What the HL7 door answers with."""

from __future__ import annotations

from functools import partial
from zoneinfo import ZoneInfo

from infra import hl7_senders
from infra.hl7_door import Hl7Door
from infra.patient_keys import PatientKeys
from infra.results_waiting import Queue
from producers.hl7.answered import Answered
from producers.hl7.incoming import Take
from producers.hl7.orders import OrdersIn
from producers.hl7.receiver import Receiver
from producers.hl7.results import Results
from producers.hl7.stated import JOINS, PARTS, STATES, PatientsIn
from producers.report_door import duty_of


def register(door: Hl7Door) -> None:
    """Give the door its answers, and look at what waits."""
    settings = door.settings
    keys = PatientKeys(door.views, door.secrets) if door.secrets is not None else None
    results = Results(
        objects=door.objects,
        chain=door.chain,
        bucket=settings.bucket_documents,
        duty=duty_of(settings),
        studies=lambda: door.studies,
        queue=Queue(door.state),
        zone=ZoneInfo(settings.time_zone),
        keys=keys,
    )
    zone = ZoneInfo(settings.time_zone)
    orders = OrdersIn(
        door.objects, door.chain, bucket=settings.bucket_documents, zone=zone, zone_name=settings.time_zone
    )
    takes: dict[str, Take] = {"ORU^R01": results.take, "ORM^O01": orders.take, "OMI^O23": orders.take}
    if keys is not None:
        patients = PatientsIn(door.objects, door.chain, bucket=settings.bucket_documents, keys=keys)
        takes |= dict.fromkeys(STATES, patients.state)
        takes |= dict.fromkeys(JOINS, patients.join) | dict.fromkeys(PARTS, patients.part)
    receiver = Receiver(
        objects=door.objects,
        bucket=settings.bucket_documents,
        site=settings.site,
        processing=settings.hl7_processing,
        senders=partial(hl7_senders.read, door.state),
        answered=Answered(door.state),
        takes=takes,
    )
    door.answer = receiver.answer
    door.tasks.append(results.run)
    door.backlogs["results_waiting"] = lambda: results.count
