"""The S3 client, how its calls are repeated, and what its errors mean: one table, by code, then by HTTP status."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
)

from infra import clock
from infra.settings import Settings
from schemas.errors import Defect, NotFound, SijilError, Transient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECTIONS_MAX = 32
DEADLINE_S = 15.0
BACKOFF_S = 0.1
BACKOFF_MAX_S = 2.0

T = TypeVar("T")

CODES: dict[str, type[SijilError]] = {
    "NoSuchKey": NotFound,
    "NoSuchVersion": NotFound,
    "NoSuchUpload": Transient,  # somebody aborted it: the whole upload is done again
    "NoSuchBucket": Defect,
    "BadDigest": Defect,  # the bytes are not those of their checksum
    "XAmzContentChecksumMismatch": Defect,
    "InvalidRange": Defect,
    "RequestTimeout": Transient,
    "ConditionalRequestConflict": Transient,  # another put of that key is under way
    "OperationAborted": Transient,
}
STATUSES: dict[int, type[SijilError]] = {
    404: NotFound,  # HEAD has no body, so no code
    405: NotFound,  # a version that is a delete marker
    408: Transient,
    409: Transient,
    429: Transient,
    500: Transient,
    502: Transient,
    503: Transient,
    504: Transient,
    507: Transient,
}
"""Any other status, 403 above all, is a Defect: no repetition heals it."""

CLIENT_ERRORS = (ClientError, BotoCoreError, OSError)
"""What a call of boto raises when the world is at fault."""


class Taken(Exception):
    """412: the key is taken. An answer, not an error."""


def of_answer(status: int, code: str) -> type[SijilError]:
    """The error that an answer means."""
    return CODES.get(code) or STATUSES.get(status, Defect)


def mapped(error: Exception, step: str) -> SijilError:
    """Our error for one of boto's. `step` names bucket and key; the service's text is not kept."""
    if isinstance(error, ClientError):
        status, code = answered(error)
        return of_answer(status, code)(f"s3: {step}: {status} {code}")
    away = isinstance(error, HTTPClientError | EndpointConnectionError | IncompleteReadError | OSError)
    return (Transient if away else Defect)(f"s3: {step}: {type(error).__name__}")


def answered(error: ClientError) -> tuple[int, str]:
    """(HTTP status, code) of an answer that is an error."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(error.response.get("Error", {}).get("Code", ""))


def client(settings: Settings, *, attempts: int = 1) -> S3Client:
    """A client that signs no body: each put carries its own checksum, signed. `attempts` of its own at a request."""
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key,
        verify=settings.s3_ca_file or None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path", "payload_signing_enabled": False},
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=CONNECTIONS_MAX,
            connect_timeout=3,
            read_timeout=60,
            tcp_keepalive=True,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def call(step: str, attempt: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Do it; again with back-off while it is Transient and the deadline has not passed. Raises Taken at a 412."""
    deadline = clock.monotonic() + deadline_s
    pause = BACKOFF_S
    while True:
        try:
            return attempt()
        except CLIENT_ERRORS as e:
            if isinstance(e, ClientError) and answered(e)[0] == 412:
                raise Taken from e
            error = mapped(e, step)
            if not isinstance(error, Transient) or clock.monotonic() + pause > deadline:
                raise error from e
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, no secret
        pause = min(pause * 2, BACKOFF_MAX_S)


def base64_of(digest: bytes) -> str:
    """A checksum as the headers of S3 have it."""
    return base64.b64encode(digest).decode()
