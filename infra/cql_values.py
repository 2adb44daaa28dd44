"""Values as Cassandra keeps them, column by column of a `schemas.tables.Table`.

What comes out is what went in, and None is no value: `text` str, `int` and `bigint` int, `blob` bytes, `boolean` bool,
`timestamp` datetime in UTC to the millisecond (in: also milliseconds since the epoch), `frozen<set<text>>` frozenset
(in: any collection), `frozen<list<text>>` list.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cassandra import cqltypes

from schemas.errors import Defect

PROTOCOL_VERSION = 5

_SIMPLE: dict[str, tuple[Any, type]] = {
    "text": (cqltypes.UTF8Type, str),
    "int": (cqltypes.Int32Type, int),
    "bigint": (cqltypes.LongType, int),
    "blob": (cqltypes.BytesType, bytes),
    "boolean": (cqltypes.BooleanType, bool),
    "timestamp": (cqltypes.DateType, datetime),
    "frozen<set<text>>": (cqltypes.SetType.apply_parameters([cqltypes.UTF8Type]), frozenset),
    "frozen<list<text>>": (cqltypes.ListType.apply_parameters([cqltypes.UTF8Type]), list),
}
_ACCEPTED: dict[type, tuple[type, ...]] = {
    frozenset: (frozenset, set, list, tuple),
    list: (list, tuple),
    datetime: (datetime, int),
}


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


# The driver's own choice (naive times, sorted sets) → ours, for the types where they differ.
FROM_DRIVER: dict[str, Callable[[Any], Any]] = {
    "timestamp": _aware,
    "frozen<set<text>>": frozenset,
    "frozen<list<text>>": list,
}

# Ours → what the driver is given. It writes a frozen set in the order it finds, and equal sets must give equal bytes.
TO_DRIVER: dict[str, Callable[[Any], Any]] = {"frozen<set<text>>": sorted}


def serialise(cql_type: str, value: Any) -> bytes:
    """The bytes of a value that is not None. Raises Defect for a value of another type."""
    codec, kind = _SIMPLE[cql_type]
    if not isinstance(value, _ACCEPTED.get(kind, (kind,))) or (kind is int and isinstance(value, bool)):
        raise Defect(f"{type(value).__name__} is no {cql_type}")
    try:
        data: bytes = codec.serialize(TO_DRIVER.get(cql_type, _same)(value), PROTOCOL_VERSION)
    except Exception as e:  # struct.error, OverflowError, …: whatever the codec says, the value does not fit
        raise Defect(f"a value does not fit {cql_type}") from e
    return data


def deserialise(cql_type: str, data: bytes) -> Any:
    """The value of its bytes."""
    codec, _ = _SIMPLE[cql_type]
    return FROM_DRIVER.get(cql_type, _same)(codec.deserialize(data, PROTOCOL_VERSION))


def _same(value: Any) -> Any:
    return value
