"""C-GET (PS3.4 §C.4.3): instances are stored back on the association on which they are asked for."""

from __future__ import annotations

from pynetdicom.dimse_primitives import C_GET

from consumers.dicom.retrieval import CANCELLED, CANNOT_COUNT, GET_MODELS, UNABLE, Progress
from consumers.dicom.sending import NO_CONTEXT, PROCESSING_FAILURE, begun, by_syntax, context_for, data_set
from consumers.dicom.services import DicomRoom, who
from consumers.dicom.transfer import Answers, Retrieval, Study, counted
from infra import telemetry
from infra.dicom_exchange import Exchange, Gone
from schemas.errors import SijilError, Transient

log = telemetry.logger(__name__)

STORE_S = 120.0
"""How long the receiver may take to answer a sub-operation."""


def get(room: DicomRoom, exchange: Exchange) -> None:
    """One request, on the association's own thread."""
    answers = Answers(exchange, "get", C_GET)
    retrieval = Retrieval(room, exchange, answers, who(exchange.peer), "dicom-get")
    studies = retrieval.studies(GET_MODELS.get(exchange.context.abstract_syntax, ()))
    if studies is None:
        return
    progress = Progress(sum(len(s.rows) for s in studies))
    try:
        for study in studies:
            with retrieval.recorded(study):
                if not _send(retrieval, study, progress):
                    answers.last(CANCELLED, progress)
                    return
        answers.last(progress.status(), progress)
    except (Gone, OSError) as error:
        reason = type(error).__name__
        log.info("c-get: the requester has gone", ae_title=exchange.peer.calling_ae, reason=reason)
    except Transient as error:
        log.warning("c-get: stopped", reason=type(error).__name__)
        answers.last(CANNOT_COUNT, progress)
    except SijilError as error:
        log.error("c-get failed", error=error)
        answers.last(UNABLE, progress)


def _send(retrieval: Retrieval, study: Study, progress: Progress) -> bool:
    """Whether all were tried: False when the request was cancelled."""
    exchange = retrieval.exchange
    contexts = by_syntax(exchange.line.contexts())
    for row in study.rows:
        if retrieval.stopped():
            return False
        context = context_for(row, contexts)
        if context is None:
            counted(progress, row, NO_CONTEXT, "no-context")
        else:
            try:
                pieces = begun(data_set(retrieval.room, row, context.transfer_syntax, retrieval.sent))
            except SijilError as error:
                counted(progress, row, PROCESSING_FAILURE, type(error).__name__)
            else:
                status = exchange.line.store(context, row["sop_class"], row["sop_uid"], pieces, STORE_S)
                counted(progress, row, status)
        retrieval.answers.pending(progress)
    return True
