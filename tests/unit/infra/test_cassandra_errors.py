"""The driver's errors and ours, one by one."""

from __future__ import annotations

import ssl
from typing import Any

import cassandra
import pytest
from cassandra import cluster, connection, pool, protocol

from infra.cassandra import ERRORS, mapped
from schemas.errors import Defect, SijilError, Transient

CASES: list[tuple[BaseException, type[SijilError]]] = [
    (cluster.NoHostAvailable("away", {}), Transient),
    (cluster.NoHostAvailable("away", {"a": connection.ConnectionException("refused")}), Transient),
    (cluster.NoHostAvailable("away", {"a": ConnectionRefusedError()}), Transient),
    (cluster.NoHostAvailable("one may answer", {"a": cassandra.AuthenticationFailed(), "b": OSError()}), Transient),
    (ConnectionResetError(), Transient),
    (ssl.SSLCertVerificationError(), Defect),
    (cluster.NoHostAvailable("wrong password", {"a": cassandra.AuthenticationFailed()}), Defect),
    (cassandra.AuthenticationFailed(), Defect),
    (cassandra.OperationTimedOut(), Transient),
    (cassandra.Unavailable("x", 1, 2, 1), Transient),
    (cassandra.WriteTimeout("x", 1), Transient),
    (cassandra.ReadTimeout("x", 1), Transient),
    (cassandra.WriteFailure("x", 1), Transient),
    (cassandra.ReadFailure("x", 1), Transient),
    (cassandra.InvalidRequest("x"), Defect),
    (cassandra.Unauthorized("x"), Defect),
    (cassandra.AlreadyExists("k", "t"), Defect),
    (cassandra.UnsupportedOperation("x"), Defect),
    (cassandra.UnresolvableContactPoints(), Transient),
    (cassandra.DriverException(), Defect),
    (protocol.SyntaxException(0x2000, "x", {}), Defect),
    (protocol.OverloadedErrorMessage(0x1001, "x", {}), Transient),
    (protocol.IsBootstrappingErrorMessage(0x1002, "x", {}), Transient),
    (protocol.ServerError(0x0000, "x", {}), Transient),
    (connection.ConnectionShutdown("x"), Transient),
    (connection.ConnectionBusy("x"), Transient),
    (pool.NoConnectionsAvailable("x"), Transient),
    (TypeError("a value that does not fit"), Defect),
]


@pytest.mark.parametrize(("theirs", "ours"), CASES, ids=lambda c: type(c).__name__)
def test_each_error_has_its_outcome(theirs: BaseException, ours: type[SijilError]) -> None:
    assert type(mapped(theirs, "step")) is ours


def test_every_line_of_the_table_is_met() -> None:
    def first(error: BaseException) -> Any:
        return next((line for line in ERRORS if isinstance(error, line[0])), None)

    assert {line[0] for line in ERRORS} == {line[0] for line in (first(e) for e, _ in CASES) if line}


def test_the_text_names_the_step_and_the_type_and_no_value() -> None:
    error = mapped(cassandra.InvalidRequest("Invalid STRING constant (AHMED^ALI)"), "select sijil_views")
    assert str(error) == "cassandra: select sijil_views: InvalidRequest"
