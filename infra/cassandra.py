"""The Tables port on Cassandra.

Writes: prepared INSERT and DELETE `USING TIMESTAMP ?`, marked idempotent (or the driver would not retry them), in
unlogged batches of one partition, which Cassandra applies as one mutation, or of several small partitions of the same
nodes. With the durable commit log a statement per row made 1,500 rows/s, batches of 100 rows 41,000.
Reads: prepared, by partition, every page asked for explicitly.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    DriverException,
    OperationTimedOut,
    ProtocolVersion,
    RequestExecutionException,
    RequestValidationException,
    UnresolvableContactPoints,
    UnsupportedOperation,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.connection import ConnectionBusy, ConnectionException
from cassandra.policies import DCAwareRoundRobinPolicy, ExponentialReconnectionPolicy, TokenAwarePolicy
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import ErrorMessage
from cassandra.protocol import RequestValidationException as ProtocolValidationException
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

from infra import cassandra_round, cql_statements
from infra.cql_values import FROM_DRIVER, TO_DRIVER
from infra.ports import Row, Select
from infra.settings import Settings
from schemas.errors import Defect, SijilError, Transient
from schemas.tables import STATE_TABLES, TABLES, VIEWS_KEYSPACE, Delete, Table, Upsert, Write

BATCH_ROWS_MAX = 100
BATCH_BYTES_MAX = 128 * 1024
"""Far below the 8 MiB that a mutation may have (half a commit log segment). `batch_size_fail_threshold` counts batches
of several partitions only (CASSANDRA-10876)."""
SHARED_BYTES_MAX = 32 * 1024
"""Of a batch of several partitions: below the 50 KiB at which a node with default settings refuses one. A row of its
own costs the driver 200 us of this process, one in a shared batch 30."""
CELL_BYTES = 24
"""What a node counts beside a value (timestamp, TTL, deletion time): half of a row of many small columns."""
CONCURRENCY = 64
"""Statements under way of one call: a node writes what it is sent in parallel, and the rest waits here, not there."""
PAGE_ROWS = 500
TIMEOUT_S = 10.0

# First match wins, so special cases stand before their bases. Anything else is a Defect: see `mapped`.
ERRORS: tuple[tuple[type[BaseException], type[SijilError]], ...] = (
    (AuthenticationFailed, Defect),
    (ssl.SSLCertVerificationError, Defect),
    (OSError, Transient),  # refused, reset, timed out: what NoHostAvailable holds for each host
    (RequestValidationException, Defect),  # InvalidRequest, Unauthorized, AlreadyExists, ConfigurationException
    (ProtocolValidationException, Defect),  # SyntaxException, PreparedQueryNotFound
    (UnsupportedOperation, Defect),
    (UnresolvableContactPoints, Transient),  # the resolver may be away
    (RequestExecutionException, Transient),  # Unavailable, Read- and WriteTimeout, Read- and WriteFailure
    (OperationTimedOut, Transient),
    (ErrorMessage, Transient),  # Overloaded, IsBootstrapping, ServerError: what the driver hands on as it came
    (ConnectionException, Transient),
    (ConnectionBusy, Transient),
    (NoConnectionsAvailable, Transient),
    (NoHostAvailable, Transient),
    (DriverException, Defect),
)


def mapped(error: BaseException, step: str) -> SijilError:
    """Our error for one of the driver's. Its text is not kept: it may quote a value."""
    if isinstance(error, NoHostAvailable) and isinstance(error.errors, Mapping) and error.errors:
        kinds = {type(mapped(e, step)) for e in error.errors.values() if isinstance(e, BaseException)}
        if kinds == {Defect}:
            # Every host refused us for good: a wrong password at connecting.
            return Defect(f"cassandra: {step}: every host refuses this process")
    kind = next((ours for theirs, ours in ERRORS if isinstance(error, theirs)), Defect)
    return kind(f"cassandra: {step}: {type(error).__name__}")


def open_session(settings: Settings) -> tuple[Cluster, Session]:
    """A connection by the settings, rows as tuples. Raises Transient, or Defect when the role is refused."""
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=settings.cassandra_local_dc)),
        consistency_level=ConsistencyLevel.name_to_value[settings.cassandra_consistency],
        request_timeout=TIMEOUT_S,
        row_factory=_tuples,
    )
    cluster = Cluster(
        contact_points=[h.strip() for h in settings.cassandra_contact_points.split(",")],
        port=settings.cassandra_port,
        auth_provider=_credentials(settings),
        ssl_context=ssl.create_default_context(cafile=settings.cassandra_ca_file)
        if settings.cassandra_ca_file
        else None,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        # Seconds between attempts at a node that is down. The driver's own go up to ten minutes.
        reconnection_policy=ExponentialReconnectionPolicy(0.5, 5.0),
        # The driver's own 5 s and 2 s are too short for a busy machine's first answers.
        connect_timeout=TIMEOUT_S,
        control_connection_timeout=TIMEOUT_S,
        protocol_version=ProtocolVersion.V5,
        monitor_reporting_enabled=False,
    )
    try:
        return cluster, cluster.connect()
    except Exception as e:
        cluster.shutdown()
        raise mapped(e, "connect") from e


def _credentials(settings: Settings) -> PlainTextAuthProvider | None:
    if not settings.cassandra_username:
        return None
    return PlainTextAuthProvider(settings.cassandra_username, settings.cassandra_password)


def _tuples(_: Sequence[str], rows: list[Any]) -> list[Any]:
    return rows


_Kind = tuple[str, type[Write]]
"""Of a write: table, Upsert or Delete."""


class CassandraTables:
    """One keyspace of one session. Bound to no event loop; `with_keyspace` shares the session."""

    def __init__(self, cluster: Cluster, session: Session, keyspace: str, definitions: Mapping[str, Table]) -> None:
        self._cluster = cluster
        self._session = session
        self._keyspace = keyspace
        self._definitions = definitions
        self._prepared: dict[str, Any] = {}
        self._writers: dict[_Kind, _Writer] = {}
        self._reads: dict[cql_statements.Shape, _Read] = {}
        self._others: dict[str, CassandraTables] = {}

    @classmethod
    def connect(
        cls,
        settings: Settings,
        keyspace: str = VIEWS_KEYSPACE,
        definitions: Iterable[Table] = TABLES + STATE_TABLES,
    ) -> CassandraTables:
        """Blocks until connected. Raises Transient, or Defect when the role is refused."""
        cluster, session = open_session(settings)
        return cls(cluster, session, keyspace, {t.name: t for t in definitions})

    @property
    def keyspace(self) -> str:
        return self._keyspace

    def with_keyspace(self, keyspace: str) -> CassandraTables:
        if keyspace == self._keyspace:
            return self
        other = self._others.get(keyspace)
        if other is None:
            other = CassandraTables(self._cluster, self._session, keyspace, self._definitions)
            self._others[keyspace] = other
        return other

    def close(self) -> None:
        self._cluster.shutdown()

    async def apply(self, writes: Sequence[Write]) -> None:
        groups: dict[tuple[str, tuple[Any, ...]], list[Write]] = {}
        kinds: set[_Kind] = set()
        for write in writes:
            table = self._table(write.table)
            if write.key.keys() != set(table.primary_key):
                raise Defect(f"{table.name}: a write names the whole primary key")
            kinds.add((table.name, type(write)))
            groups.setdefault((table.name, tuple(write.key[c] for c in table.partition_key)), []).append(write)
        for kind in kinds - self._writers.keys():
            self._writers[kind] = await self._writer(kind)
        await self._run("apply", self._batches(groups.values()))

    async def select(self, query: Select) -> list[Row]:
        return (await self.select_many((query,)))[0]

    async def select_many(self, queries: Sequence[Select]) -> list[list[Row]]:
        reads = [await self._read(q) for q in queries]
        answers = await self._run("select", (r.bind(q) for r, q in zip(reads, queries, strict=True)))
        return [r.rows(tuples) for r, tuples in zip(reads, answers, strict=True)]

    async def scan(self, table: str, *, writetime: bool = False) -> AsyncIterator[Row]:
        definition = self._table(table)
        cql = cql_statements.scan(self._keyspace, definition, writetime=writetime)
        (statement,) = await self._prepare({cql})
        names = tuple(definition.columns)
        times = tuple(f"writetime({c})" for c in cql_statements.regular(definition)) if writetime else ()
        read = _Read(statement, definition, names)
        try:
            async for page in cassandra_round.pages(self._session.execute_async, statement.bind(())):
                for values, row in zip(page, read.rows(page), strict=True):
                    written = zip(times, values[len(names) :], strict=True)
                    yield row | {name: time for name, time in written if time is not None}
        except SijilError:
            raise
        except Exception as e:
            raise mapped(e, f"scan {table}") from e

    # ------------------------------------------------------------------------------------------------ statements

    def _table(self, name: str) -> Table:
        table = self._definitions.get(name)
        if table is None:
            raise Defect(f"no table {name}")
        return table

    async def _writer(self, kind: _Kind) -> _Writer:
        table = self._definitions[kind[0]]
        make = cql_statements.insert if kind[1] is Upsert else cql_statements.delete
        (statement,) = await self._prepare({make(self._keyspace, table)})
        return _Writer(statement, table)

    async def _prepare(self, texts: Iterable[str]) -> list[Any]:
        """Prepared statements; on a thread the first time, for the driver blocks there."""
        return [self._prepared.get(t) or await asyncio.to_thread(self._prepare_now, t) for t in texts]

    def _prepare_now(self, cql: str) -> Any:
        try:
            statement = self._session.prepare(cql)
        except Exception as e:
            raise mapped(e, "prepare") from e
        statement.is_idempotent = True
        statement.fetch_size = PAGE_ROWS
        self._prepared[cql] = statement
        return statement

    async def _read(self, query: Select) -> _Read:
        shape = cql_statements.shape_of(self._table(query.table), query)
        read = self._reads.get(shape)
        if read is None:
            (statement,) = await self._prepare({cql_statements.select(self._keyspace, shape)})
            read = self._reads[shape] = _Read(statement, self._definitions[query.table], shape[2], shape[1])
        return read

    async def _run(self, step: str, statements: Iterator[Any]) -> list[list[Any]]:
        try:
            return await cassandra_round.run(self._session.execute_async, statements, CONCURRENCY)
        except SijilError:
            raise
        except Exception as e:
            raise mapped(e, f"{step} {self._keyspace}") from e

    def _batches(self, groups: Iterable[list[Write]]) -> Iterator[Any]:
        """Bounded statements: rows of one partition, or of several small ones that the same nodes hold."""
        shared: dict[Any, tuple[list[Any], int]] = {}
        for group in groups:
            batch: list[Any] = []
            size = 0
            for write in group:
                bound, length = self._writers[write.table, type(write)].bind(write)
                if batch and (len(batch) == BATCH_ROWS_MAX or size + length > BATCH_BYTES_MAX):
                    yield _batch(batch)
                    batch, size = [], 0
                batch.append(bound)
                size += length
            if size > SHARED_BYTES_MAX:
                yield _batch(batch)
                continue
            nodes = self._replicas(batch[0])
            others, held = shared.get(nodes, ([], 0))
            if len(others) + len(batch) > BATCH_ROWS_MAX or held + size > SHARED_BYTES_MAX:
                yield _batch(others)
                others, held = [], 0
            shared[nodes] = (others + batch, held + size)
        for batch, _ in shared.values():
            yield _batch(batch)

    def _replicas(self, bound: Any) -> Any:
        """The nodes that hold a statement's partition: each can be handed all of a shared batch."""
        metadata = self._cluster.metadata
        if len(metadata.all_hosts()) == 1:
            return None
        return frozenset(metadata.get_replicas(self._keyspace, bound.routing_key))


def _batch(statements: list[Any]) -> Any:
    if len(statements) == 1:
        return statements[0]
    batch = BatchStatement(BatchType.UNLOGGED)
    batch.is_idempotent = True
    for statement in statements:
        batch.add(statement)
    return batch


class _Writer:
    """A prepared INSERT or DELETE."""

    def __init__(self, statement: Any, table: Table) -> None:
        self._statement = statement
        self._table = table
        self._columns = [(c, TO_DRIVER.get(t)) for c, t in table.columns.items()]

    def bind(self, write: Write) -> tuple[Any, int]:
        """(bound statement, bytes of its values)."""
        if isinstance(write, Delete):
            values = [write.timestamp, *(write.key[c] for c in self._table.primary_key)]
        else:
            if not write.columns.keys() <= self._table.columns.keys():
                raise Defect(f"{self._table.name} has not all columns of a write")
            given = {**write.columns, **write.key}
            values = [given.get(c, UNSET_VALUE) for c, _ in self._columns]
            for i, (column, convert) in enumerate(self._columns):
                if convert is not None and given.get(column) is not None:
                    values[i] = convert(values[i])
            values.append(write.timestamp)
        bound = self._statement.bind(values)
        return bound, sum([CELL_BYTES + len(v) for v in bound.values if isinstance(v, bytes)])


class _Read:
    """A prepared SELECT with what turns its tuples into rows."""

    def __init__(self, statement: Any, table: Table, names: tuple[str, ...], bound: tuple[str, ...] = ()) -> None:
        self._statement = statement
        self._names = names
        self._bound = bound
        convert = ((i, FROM_DRIVER.get(table.columns[n])) for i, n in enumerate(names))
        self._convert = [(i, c) for i, c in convert if c is not None]

    def bind(self, query: Select) -> Any:
        values = [query.where[n] for n in self._bound]
        values += [b[1] for b in (query.lower, query.upper) if b]
        if query.limit:
            values.append(query.limit)
        return self._statement.bind(values)

    def rows(self, answer: list[Any]) -> list[Row]:
        return [self._row(values) for values in answer]

    def _row(self, values: Sequence[Any]) -> Row:
        row = dict(zip(self._names, values, strict=False))
        for i, convert in self._convert:
            if values[i] is not None:
                row[self._names[i]] = convert(values[i])
        return row
