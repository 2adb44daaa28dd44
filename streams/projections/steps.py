"""order.step-started, .step-ended → the performed procedure steps of each study, and by accession number."""

from __future__ import annotations

from collections.abc import Mapping

from schemas import steps
from schemas.events import StepEnded, StepStarted
from schemas.steps import StepDocument
from schemas.tables import Upsert, Write
from streams.facts import Fact
from streams.pack_rows import sop_hash

IN_PROGRESS = "in-progress"


def started(fact: Fact, event: StepStarted, document: StepDocument) -> list[Write]:
    """A device is at work."""
    columns = {
        "status": IN_PROGRESS,
        "site": event.site,
        "station_ae": event.station_ae,
        "modality": event.modality,
        "started": event.recorded,
        "document_key": event.document_key,
    }
    return [
        *(_of_study(fact, uid, event.step_uid, columns) for uid in event.study_uids),
        *_of_accessions(fact, event, document, IN_PROGRESS),
    ]


def ended(fact: Fact, event: StepEnded, document: StepDocument) -> list[Write]:
    """It has ended, and lists what it made."""
    listed = steps.sop_uids(document.dataset)
    columns = {
        "status": event.outcome,
        "site": event.site,
        "station_ae": event.station_ae,
        "modality": event.modality,
        "ended": event.recorded,
        "instances": len(listed),
        "sops": b"".join(sorted(sop_hash(uid) for uid in listed)),
        "document_key": event.document_key,
    }
    return [
        *(_of_study(fact, uid, event.step_uid, columns) for uid in event.study_uids),
        *_of_accessions(fact, event, document, event.outcome),
    ]


def _of_study(fact: Fact, study_uid: str, step_uid: str, columns: Mapping[str, object]) -> Upsert:
    return Upsert("steps_by_study", {"study_uid": study_uid, "step_uid": step_uid}, columns, fact.offset)


def _of_accessions(fact: Fact, event: StepStarted | StepEnded, document: StepDocument, status: str) -> list[Upsert]:
    return [
        Upsert(
            "steps_by_accession",
            {"site": event.site, "accession": accession, "step_uid": event.step_uid},
            {"study_uid": study, "status": status},
            fact.offset,
        )
        for accession, study in steps.accessions(document.dataset).items()
    ]
