"""The client's errors and ours, one by one; when a call is repeated."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto

from infra import s3
from schemas.errors import Defect, NotFound, SijilError, Transient


def answer(status: int, code: str = "") -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Op")  # type: ignore[typeddict-item]


CASES: list[tuple[Exception, type[SijilError]]] = [
    *((answer(400, code), ours) for code, ours in s3.CODES.items()),
    *((answer(status), ours) for status, ours in s3.STATUSES.items()),
    (answer(503, "SlowDown"), Transient),
    (answer(500, "InternalError"), Transient),
    (answer(403, "AccessDenied"), Defect),
    (answer(403, "SignatureDoesNotMatch"), Defect),
    (answer(404, "NoSuchBucket"), Defect),
    (answer(404, "NoSuchKey"), NotFound),
    (answer(400, "InvalidArgument"), Defect),
    (boto.EndpointConnectionError(endpoint_url="x"), Transient),
    (boto.ConnectTimeoutError(endpoint_url="x"), Transient),
    (boto.ReadTimeoutError(endpoint_url="x"), Transient),
    (boto.ConnectionClosedError(endpoint_url="x"), Transient),
    (boto.ResponseStreamingError(error="x"), Transient),
    (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), Transient),
    (boto.NoCredentialsError(), Defect),
    (boto.ParamValidationError(report="x"), Defect),
    (ConnectionResetError(), Transient),
]


@pytest.mark.parametrize(("theirs", "ours"), CASES)
def test_each_error_has_its_outcome(theirs: Exception, ours: type[SijilError]) -> None:
    assert type(s3.mapped(theirs, "get b/k")) is ours


def test_the_text_names_the_step_and_not_what_the_service_said() -> None:
    error = boto.ClientError(
        {"Error": {"Code": "AccessDenied", "Message": "AHMED"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
        "GetObject",
    )
    assert str(s3.mapped(error, "get b/k")) == "s3: get b/k: 403 AccessDenied"


class Failing:
    """Fails with each of `errors`, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_transient_is_repeated() -> None:
    attempt = Failing(answer(503), answer(500))
    assert (s3.call("step", attempt), attempt.calls) == ("done", 3)


def test_until_the_deadline() -> None:
    attempt = Failing(*[answer(503)] * 9)
    with pytest.raises(Transient):
        s3.call("step", attempt, deadline_s=0.2)
    assert 1 < attempt.calls < 9


@pytest.mark.parametrize(("error", "ours"), [(answer(403), Defect), (answer(404), NotFound), (answer(412), s3.Taken)])
def test_what_no_repetition_heals_is_not_repeated(error: Exception, ours: type[Exception]) -> None:
    attempt = Failing(error)
    with pytest.raises(ours):
        s3.call("step", attempt)
    assert attempt.calls == 1
