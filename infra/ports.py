"""The three ports to the world and what each promises. Shells use them; the pure core returns values instead.

`infra.kafka`, `infra.cassandra`, `infra.objects` implement them on the real servers, `infra.memory` in memory; one
contract suite (`tests/contracts`) runs over both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from schemas.envelope import Record
from schemas.tables import Write


@dataclass(frozen=True)
class Position:
    """Where a record stands in the log."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Stored:
    """A record as read back: its place and the broker's time (LogAppendTime, milliseconds since the epoch)."""

    position: Position
    timestamp_ms: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None


class Log(Protocol):
    """Kafka. Appends are durable when their future resolves; reads are in order within a partition."""

    def append(self, record: Record) -> Future[Position]:
        """Send a record once. The future resolves when the broker has acknowledged it, or fails with Transient.

        Never retried across sessions here: that is the chain's work (`infra.chain`). Raises Overloaded when the local
        queue is full.
        """

    def read(self, topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Stored]:
        """Records of a topic from `start` (inclusive; missing: 0) to `end` (exclusive), partition by partition.

        Ends when every partition in `end` is read; raises Transient when the broker gives nothing for too long.
        """

    def ends(self, topic: str) -> dict[int, int]:
        """Next offset of every partition. Raises Transient."""

    def since(self, topic: str, from_ms: int) -> dict[int, int]:
        """First offset of every partition whose record is of that time (the broker's) or later; its end where none is.
        0: the first that the log still has. Raises Transient.
        """

    def close(self) -> None:
        """Flush and let go."""


@dataclass(frozen=True)
class Select:
    """A read of one partition or one row: `where` binds the partition key and any prefix of the clustering key.

    `lower` and `upper` bound the clustering column that follows, for paging.
    """

    table: str
    where: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    """Empty: all."""
    limit: int = 0
    """0: none."""
    lower: tuple[str, Any] | None = None
    """(clustering column, value): >= value."""
    upper: tuple[str, Any] | None = None
    """(clustering column, value): < value."""


Row = dict[str, Any]


class Tables(Protocol):
    """Cassandra, one keyspace. All writes are idempotent upserts with a timestamp.

    Values are as `infra.cql_values` says. A column absent from an Upsert is left alone; None removes its value.
    """

    @property
    def keyspace(self) -> str:
        """Where every call goes."""

    def with_keyspace(self, keyspace: str) -> Tables:
        """The same connection, another keyspace: after a rebuild, or `sijil_state`."""

    async def apply(self, writes: Sequence[Write]) -> None:
        """Apply all writes, batched by partition. Returns when all are durable; raises Transient (retry the whole).

        A cell with a higher timestamp wins whatever the order of arrival; equal timestamps and values are a no-op.
        """

    async def select(self, query: Select) -> list[Row]:
        """Rows of one partition in clustering order, None for absent columns. Raises Transient."""

    async def select_many(self, queries: Sequence[Select]) -> list[list[Row]]:
        """The same for several partitions at once, answers in the order of the queries."""

    def scan(self, table: str, *, writetime: bool = False) -> AsyncIterator[Row]:
        """Every row of a table, in no order: for rebuild's comparison and exports, never for a query.

        With `writetime`, each regular column c that is set also gives `writetime(c)`.
        """

    def close(self) -> None:
        """Let go of the connection, for every keyspace."""


@dataclass(frozen=True)
class ObjectInfo:
    """What HEAD says."""

    size: int
    version_id: str
    metadata: Mapping[str, str]
    retain_until: str = ""
    """RFC 3339, empty without a lock."""

    def locked_until(self, moment: str) -> bool:
        """Whether the object is locked at least until `moment` (RFC 3339)."""
        return bool(self.retain_until) and datetime.fromisoformat(self.retain_until) >= datetime.fromisoformat(moment)


class Objects(Protocol):
    """S3. An object put under a key is never replaced."""

    def put(self, bucket: str, key: str, body: bytes | Path, *, sha256: str, content_type: str = "") -> ObjectInfo:
        """Store durably with its own SHA-256 sent along and `If-None-Match: *`.

        Already there with the same SHA-256: returns its info. With another: raises Defect. Multipart above 64 MiB.
        """

    def get(self, bucket: str, key: str, *, version_id: str = "") -> bytes:
        """The whole object (manifests, documents). Raises NotFound, Transient."""

    def chunks(self, bucket: str, key: str, *, version_id: str = "") -> Iterator[bytes]:
        """The whole object in pieces of bounded size: for hashing it. Raises NotFound, Transient."""

    def get_range(self, bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> bytes:
        """`length` bytes from `offset`. Raises NotFound, Transient; Defect when fewer bytes come."""

    def stream(self, bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> AsyncIterator[bytes]:
        """The same in chunks, over connections kept for the running event loop (`close_streams`).

        A broken connection is taken up where it broke. Raises NotFound before the first chunk, Transient, Defect.
        """

    def head(self, bucket: str, key: str, *, version_id: str = "") -> ObjectInfo:
        """Raises NotFound, Transient."""

    def copy_locked(
        self, source: tuple[str, str], target: tuple[str, str], *, sha256: str, retain_until: str
    ) -> ObjectInfo:
        """Copy server-side under Object Lock (COMPLIANCE) until `retain_until`, unless a copy with that SHA-256 and at
        least that retention is there; verify its bytes' SHA-256. Raises Defect when they differ.
        """

    def list(self, bucket: str, prefix: str) -> Iterable[str]:
        """Keys under a prefix, in order."""

    async def close_streams(self) -> None:
        """Let go of the connections that `stream` keeps for the running event loop."""

    def close(self) -> None:
        """Let go of all others."""
