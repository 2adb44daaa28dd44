"""What the HL7 door answers with."""

from __future__ import annotations

from functools import partial
from zoneinfo import ZoneInfo

from infra import hl7_senders
from infra.hl7_door import Hl7Door
from producers.hl7.answered import Answered
from producers.hl7.incoming import Take
from producers.hl7.receiver import Receiver
from producers.hl7.results import Results
from producers.hl7.waiting import Queue
from producers.report_door import duty_of


def register(door: Hl7Door) -> None:
    """Give the door its answers, and look at what waits."""
    settings = door.settings
    results = Results(
        objects=door.objects,
        chain=door.chain,
        bucket=settings.bucket_documents,
        duty=duty_of(settings),
        studies=lambda: door.studies,
        queue=Queue(door.state),
        zone=ZoneInfo(settings.time_zone),
    )
    takes: dict[str, Take] = {"ORU^R01": results.take}
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
