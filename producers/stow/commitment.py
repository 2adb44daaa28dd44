"""Storage commitment by HTTP (PS3.18 §13): `/dicom-web/commitment-requests/{transaction}`.

POST asks, GET asks for the result. 200 with the result as soon as it is final, 202 with Retry-After while it is not. A
result stays for the days given to a transaction; a transaction belongs to the process that took it, like the spool.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from infra import clock
from infra.http_caller import needs
from infra.http_door import HttpDoor
from infra.http_problems import problem
from producers.commitment.transaction import Transaction, json_of, of_json
from producers.commitment.worker import Commitments, Duplicate
from schemas.errors import NotFound
from schemas.identity import check_uid
from schemas.roles import Permission

PATH: Final = "/dicom-web/commitment-requests/{transaction}"
DICOM_JSON: Final = "application/dicom+json"
TYPES: Final = (DICOM_JSON, "application/json")
BODY_MAX: Final = 16 << 20
AT_ONCE_S: Final = 1.0
"""How long a request waits for its result before it is told to come back."""
TICK_S: Final = 0.05
RETRY_AFTER_S: Final = 5

STATUSES: Final = {
    200: "the result is final",
    202: "the result is not final; ask again after Retry-After seconds",
    400: "the Transaction UID, the payload or a reference is not valid",
    404: "no such transaction, or its result is older than the days it is kept",
    406: "the answer is application/dicom+json",
    409: "the Transaction UID is in use for other instances",
    415: "the payload is not application/dicom+json",
    503: "the request could not be made durable, or too many are open",
}


def add(app: FastAPI, http: HttpDoor, commitments: Commitments) -> None:
    """Add the two transactions to the door."""
    http.body_limit("/dicom-web/commitment-requests", BODY_MAX)

    may = [needs(Permission.STUDY_STORE)]

    @app.post(PATH, tags=["DICOMweb"], summary="Request storage commitment", dependencies=may)
    async def request(request: Request, transaction: str) -> Response:
        if refused := _refused(request):
            return refused
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in TYPES:
            return problem(415, "The payload is application/dicom+json")
        uid, references = of_json(transaction, await request.body())
        try:
            key = await asyncio.to_thread(commitments.request, uid, references)
        except Duplicate as error:
            return problem(409, "The Transaction UID is in use for other instances", reason=error.reason)
        except OSError:
            return problem(503, "The request could not be kept", headers={"Retry-After": str(RETRY_AFTER_S)})
        commitments.go(key)
        deadline = clock.monotonic() + AT_ONCE_S
        found = commitments.find(uid)
        while found is not None and found.outcome is None and clock.monotonic() < deadline:
            await asyncio.sleep(TICK_S)
            found = commitments.find(uid)
        return _answer(found)

    @app.get(PATH, tags=["DICOMweb"], summary="Result of a storage commitment", dependencies=may)
    async def result(request: Request, transaction: str) -> Response:
        check_uid(transaction)
        return _refused(request) or _answer(commitments.find(transaction))


def _answer(found: Transaction | None) -> Response:
    if found is None:
        raise NotFound("no such transaction")
    if found.outcome is None:
        return Response(status_code=202, headers={"Retry-After": str(RETRY_AFTER_S)})
    return Response(json_of(found.outcome), media_type=DICOM_JSON)


def _refused(request: Request) -> Response | None:
    accept = ", ".join(request.headers.getlist("accept"))
    kinds = (kind.partition(";")[0].strip().lower() for kind in accept.split(","))
    if accept and not any(kind in (*TYPES, "application/*", "*/*") for kind in kinds):
        return problem(406, "The answer is application/dicom+json")
    return None
