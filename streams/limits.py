"""What a row can hold. A figure or key beyond it is the fault of one event, which goes to the dead letters alone: the
database would refuse its whole batch, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.errors import Invalid
from schemas.tables import BY_NAME, Table, Upsert, Write

KEY_TEXT_MAX = 1024
"""Characters of a key's value; Cassandra takes 65,535 bytes over all of a key."""
_BITS = {"int": 31, "bigint": 63}


def _figures(table: Table) -> dict[str, int]:
    return {name: 1 << _BITS[kind] for name, kind in table.columns.items() if kind in _BITS}


_FIGURES = {name: _figures(table) for name, table in BY_NAME.items()}


def within(writes: Iterable[Write]) -> list[Write]:
    """The writes, if all fit. Raises Invalid(`figure-too-large`, `key-too-long`)."""
    checked = list(writes)
    for write in checked:
        for value in write.key.values():
            if isinstance(value, str) and len(value) > KEY_TEXT_MAX:
                raise Invalid("key-too-long")
        values = {**write.key, **write.columns} if isinstance(write, Upsert) else write.key
        for name, limit in _FIGURES[write.table].items():
            value = values.get(name, 0)
            if not -limit <= value < limit:
                raise Invalid("figure-too-large")
    return checked
