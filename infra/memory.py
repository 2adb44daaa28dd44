"""The three ports in memory: the same promises as the real servers, kept by the same contract suite.

For tests of everything above the ports. `away = True` is a server out of reach: every call raises Transient.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra import clock
from infra.cql_statements import shape_of
from infra.cql_values import deserialise, serialise
from infra.murmur2 import partition_of
from infra.ports import ObjectInfo, Position, Row, Select, Stored
from schemas import tables, topics
from schemas.envelope import Record
from schemas.errors import Defect, NotFound, Transient
from schemas.tables import Table, Upsert, Write

STREAM_CHUNK_BYTES = 256 * 1024


class _Server:
    """What can be out of reach."""

    away = False

    def _reach(self) -> None:
        if self.away:
            raise Transient(f"{type(self).__name__} is away")


class MemoryLog(_Server):
    """Kafka: partitions by murmur2 of the key, time given by the log, nothing ever removed."""

    def __init__(self, partitions: int = 6) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, list[list[Stored]]] = {t.name: [[] for _ in range(partitions)] for t in topics.TOPICS}

    def append(self, record: Record) -> Future[Position]:
        future: Future[Position] = Future()
        try:
            future.set_result(self._append(record))
        except Transient as e:
            future.set_exception(e)
        return future

    def _append(self, record: Record) -> Position:
        self._reach()
        partitions = self._partitions(record.topic)
        n = partition_of(record.key, len(partitions))
        with self._lock:
            position = Position(record.topic, n, len(partitions[n]))
            partitions[n].append(Stored(position, clock.now_ms(), record.key, record.headers, record.value))
        return position

    def _partitions(self, topic: str) -> list[list[Stored]]:
        partitions = self._topics.get(topic)
        if partitions is None:
            raise Transient(f"topic {topic} is not there (yet)")
        return partitions

    def read(self, topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Stored]:
        self._reach()
        partitions = self._partitions(topic)
        for n in sorted(end):
            first = start.get(n, 0)
            if end[n] <= first:
                continue
            if n >= len(partitions) or end[n] > len(partitions[n]):
                raise Transient(f"{topic}/{n} has nothing at {end[n] - 1}")
            yield from partitions[n][first : end[n]]

    def ends(self, topic: str) -> dict[int, int]:
        self._reach()
        return {n: len(stored) for n, stored in enumerate(self._partitions(topic))}

    def since(self, topic: str, from_ms: int) -> dict[int, int]:
        self._reach()
        found = {}
        for n, stored in enumerate(self._partitions(topic)):
            later = (s.position.offset for s in stored if s.timestamp_ms >= from_ms)
            found[n] = next(later, len(stored))
        return found

    def close(self) -> None:
        """Nothing to let go."""


@dataclass
class _Cells:
    """One row as Cassandra keeps it: every cell with its own timestamp, None for a tombstone."""

    deleted: int | None = None
    alive: int | None = None
    """Timestamp of the newest INSERT: what keeps a row of keys alone alive."""
    cells: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)

    def upsert(self, timestamp: int, columns: Mapping[str, bytes | None]) -> None:
        self.alive = timestamp if self.alive is None else max(self.alive, timestamp)
        for name, value in columns.items():
            if name not in self.cells or _wins((timestamp, value), self.cells[name]):
                self.cells[name] = (timestamp, value)

    def live(self) -> dict[str, tuple[int, bytes]] | None:
        """Set cells with their timestamps; None if the row is not there. A delete wins a tie."""
        floor = -1 if self.deleted is None else self.deleted
        cells = {n: (t, v) for n, (t, v) in self.cells.items() if v is not None and t > floor}
        return cells if cells or (self.alive is not None and self.alive > floor) else None


def _wins(new: tuple[int, bytes | None], old: tuple[int, bytes | None]) -> bool:
    """Cassandra's `Cells.resolveRegular`: the higher timestamp, then a tombstone, then the greater bytes."""
    if new[0] != old[0]:
        return new[0] > old[0]
    return old[1] is not None and (new[1] is None or new[1] > old[1])


Key = tuple[Any, ...]


class MemoryTables(_Server):
    """Cassandra: cells resolved one by one by their timestamps, rows of a partition in clustering order."""

    def __init__(
        self,
        keyspace: str = tables.VIEWS_KEYSPACE,
        definitions: Iterable[Table] = tables.TABLES + tables.STATE_TABLES,
    ) -> None:
        self._keyspace = keyspace
        self._definitions = {t.name: t for t in definitions}
        self._keyspaces: dict[str, dict[str, dict[Key, dict[Key, _Cells]]]] = {}

    @property
    def keyspace(self) -> str:
        return self._keyspace

    def with_keyspace(self, keyspace: str) -> MemoryTables:
        other = MemoryTables(keyspace, self._definitions.values())
        other._keyspaces = self._keyspaces
        return other

    def _table(self, name: str) -> tuple[Table, dict[Key, dict[Key, _Cells]]]:
        self._reach()
        if name not in self._definitions:
            raise Defect(f"no table {name}")
        keyspace = self._keyspaces.setdefault(self._keyspace, {})
        return self._definitions[name], keyspace.setdefault(name, defaultdict(dict))

    async def apply(self, writes: Sequence[Write]) -> None:
        for write in writes:
            table, partitions = self._table(write.table)
            if set(write.key) != set(table.primary_key):
                raise Defect(f"{table.name}: a write names the whole primary key")
            key = {n: _checked(table, n, v) for n, v in write.key.items()}
            rows = partitions[tuple(key[n] for n in table.partition_key)]
            row = rows.setdefault(tuple(key[n] for n in table.clustering), _Cells())
            if isinstance(write, Upsert):
                row.upsert(write.timestamp, {n: _bytes(table, n, v) for n, v in write.columns.items()})
            else:
                row.deleted = max(write.timestamp, row.deleted or write.timestamp)

    async def select(self, query: Select) -> list[Row]:
        table, partitions = self._table(query.table)
        _, bound_names, names, *_ = shape_of(table, query)
        partition = tuple(query.where[n] for n in table.partition_key)
        if partition == ("",):
            raise Defect(f"{table.name}: key column {table.partition_key[0]} may not be empty")  # as Cassandra
        bound = tuple(query.where[n] for n in bound_names[len(table.partition_key) :])
        found = []
        for key, cells in _in_order(table, partitions.get(partition, {})):
            live = cells.live()
            if live is not None and key[: len(bound)] == bound and _within(table, query, key):
                row = _row(table, partition + key, live)
                found.append({n: row[n] for n in names})
        return found[: query.limit or None]

    async def select_many(self, queries: Sequence[Select]) -> list[list[Row]]:
        return [await self.select(q) for q in queries]

    async def scan(self, table: str, *, writetime: bool = False) -> AsyncIterator[Row]:
        definition, partitions = self._table(table)
        for partition, rows in list(partitions.items()):
            for key, cells in _in_order(definition, rows):
                live = cells.live()
                if live is not None:
                    row = _row(definition, partition + key, live)
                    yield row | ({f"writetime({n})": t for n, (t, _) in live.items()} if writetime else {})

    def close(self) -> None:
        """Nothing to let go."""


def _checked(table: Table, column: str, value: Any) -> Any:
    """A key's value as it will be read again."""
    data = _bytes(table, column, value)
    if data is None or (column in table.partition_key and len(table.partition_key) == 1 and not data):
        raise Defect(f"{table.name}: key column {column} may not be empty")
    return deserialise(table.columns[column], data)


def _bytes(table: Table, column: str, value: Any) -> bytes | None:
    if column not in table.columns:
        raise Defect(f"{table.name} has no column {column}")
    return None if value is None else serialise(table.columns[column], value)


def _in_order(table: Table, rows: Mapping[Key, _Cells]) -> list[tuple[Key, _Cells]]:
    """Rows in clustering order: sorted stably from the last column to the first."""
    ordered = list(rows.items())
    for i in reversed(range(len(table.clustering))):
        ordered.sort(key=lambda item: item[0][i], reverse=table.clustering[i] in table.descending)
    return ordered


def _within(table: Table, query: Select, key: Key) -> bool:
    at = table.clustering.index
    above = query.lower is None or key[at(query.lower[0])] >= query.lower[1]
    return above and (query.upper is None or key[at(query.upper[0])] < query.upper[1])


def _row(table: Table, key: Key, live: Mapping[str, tuple[int, bytes]]) -> Row:
    row: Row = {n: deserialise(t, live[n][1]) if n in live else None for n, t in table.columns.items()}
    return row | dict(zip(table.primary_key, key, strict=True))


@dataclass(frozen=True)
class _Version:
    info: ObjectInfo
    body: bytes | None
    """None: a delete marker."""


class MemoryObjects(_Server):
    """S3 with versioned buckets: the newest version is served, a locked one cannot be removed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, str], list[_Version]] = defaultdict(list)

    def put(self, bucket: str, key: str, body: bytes | Path, *, sha256: str, content_type: str = "") -> ObjectInfo:
        self._reach()
        data = body.read_bytes() if isinstance(body, Path) else bytes(body)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Defect(f"{bucket}/{key}: the bytes are not those of the checksum given")
        with self._lock:
            there = self._keys[bucket, key]
            if there and there[-1].body is not None:
                if there[-1].info.metadata["sha256"] != sha256:
                    raise Defect(f"{bucket}/{key} is there with other content")
                return there[-1].info
            return self._add(bucket, key, data, {"sha256": sha256})

    def _add(self, bucket: str, key: str, body: bytes | None, metadata: Mapping[str, str]) -> ObjectInfo:
        info = ObjectInfo(len(body or b""), str(clock.uuid7()), metadata)
        self._keys[bucket, key].append(_Version(info, body))
        return info

    def _find(self, bucket: str, key: str, version_id: str) -> tuple[ObjectInfo, bytes]:
        self._reach()
        versions = self._keys.get((bucket, key), [])
        found = [v for v in versions if v.info.version_id == version_id] if version_id else versions[-1:]
        if not found or found[0].body is None:
            raise NotFound(f"{bucket}/{key} is not there")
        return found[0].info, found[0].body

    def get(self, bucket: str, key: str, *, version_id: str = "") -> bytes:
        return self._find(bucket, key, version_id)[1]

    def chunks(self, bucket: str, key: str, *, version_id: str = "") -> Iterator[bytes]:
        data = self.get(bucket, key, version_id=version_id)
        for start in range(0, len(data), STREAM_CHUNK_BYTES):
            yield data[start : start + STREAM_CHUNK_BYTES]

    def get_range(self, bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> bytes:
        data = self._find(bucket, key, version_id)[1][offset : offset + length]
        if len(data) != length:
            raise Defect(f"{bucket}/{key}: {length} bytes from {offset} are not there")
        return data

    async def stream(
        self, bucket: str, key: str, offset: int, length: int, *, version_id: str = ""
    ) -> AsyncIterator[bytes]:
        data = self.get_range(bucket, key, offset, length, version_id=version_id)
        for start in range(0, length, STREAM_CHUNK_BYTES):
            yield data[start : start + STREAM_CHUNK_BYTES]

    def head(self, bucket: str, key: str, *, version_id: str = "") -> ObjectInfo:
        return self._find(bucket, key, version_id)[0]

    def copy_locked(
        self, source: tuple[str, str], target: tuple[str, str], *, sha256: str, retain_until: str
    ) -> ObjectInfo:
        self._reach()
        with self._lock:
            versions = self._keys[target]
            there = next((v for v in versions if v.body is not None and v.info.metadata["sha256"] == sha256), None)
            if there is None:
                data = self.get(*source)
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise Defect(f"{source[0]}/{source[1]} has not the checksum expected")
                self._add(*target, data, {"sha256": sha256})
                there = versions[-1]
            if not there.info.locked_until(retain_until):
                locked = replace(there, info=replace(there.info, retain_until=retain_until))
                versions[versions.index(there)] = there = locked
            return there.info

    def list(self, bucket: str, prefix: str) -> Iterable[str]:
        self._reach()
        with self._lock:
            there = [k for (b, k), v in self._keys.items() if b == bucket and v and v[-1].body is not None]
        return sorted(k for k in there if k.startswith(prefix))

    async def close_streams(self) -> None:
        """Nothing to let go."""

    def close(self) -> None:
        """Nothing to let go."""

    def delete(self, bucket: str, key: str) -> None:
        """What an administrator could do: a delete marker on top. Versions below stay readable by their id."""
        self._add(bucket, key, None, {})

    def damage(self, bucket: str, key: str, body: bytes) -> None:
        """What a failing disk would do: other bytes under the same metadata."""
        newest = self._keys[bucket, key][-1]
        self._keys[bucket, key][-1] = replace(newest, body=body)
