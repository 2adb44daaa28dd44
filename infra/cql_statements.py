"""The CQL that the Tables port needs, made from `schemas.tables` and nothing else. Names are always qualified."""

from __future__ import annotations

from infra.ports import Select
from schemas.errors import Defect
from schemas.tables import Table, identifier

Shape = tuple[str, tuple[str, ...], tuple[str, ...], str, str, bool]
"""What a prepared SELECT depends on: table, bound columns, columns asked for, lower and upper column, limited."""


def insert(keyspace: str, table: Table) -> str:
    """Every column, then the timestamp. What is not bound stays unset and writes no tombstone."""
    names = ", ".join(map(identifier, table.columns))
    marks = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {keyspace}.{table.name} ({names}) VALUES ({marks}) USING TIMESTAMP ?"  # noqa: S608 - names of ours


def delete(keyspace: str, table: Table) -> str:
    """The timestamp, then the primary key."""
    return f"DELETE FROM {keyspace}.{table.name} USING TIMESTAMP ? WHERE {_equal(table.primary_key)}"  # noqa: S608


def shape_of(table: Table, query: Select) -> Shape:
    """Checked: raises Defect for a query that is not of one partition, or names what is not there."""
    bound = table.primary_key[: len(query.where)]
    if len(bound) < len(table.partition_key) or set(query.where) != set(bound):
        raise Defect(f"{table.name}: a select binds the partition key and a prefix of the clustering key")
    following = table.primary_key[len(bound) : len(bound) + 1]
    lower, upper = (b[0] if b else "" for b in (query.lower, query.upper))
    for name in filter(None, (lower, upper)):
        if (name,) != following:
            raise Defect(f"{table.name}: {name} is not the next clustering column")
    for name in query.columns:
        if name not in table.columns:
            raise Defect(f"{table.name} has no column {name}")
    return table.name, bound, query.columns or tuple(table.columns), lower, upper, query.limit > 0


def select(keyspace: str, shape: Shape) -> str:
    """Values: the bound columns, the lower and upper bound, the limit, as the shape has them."""
    table, bound, columns, lower, upper, limited = shape
    where = _equal(bound)
    where += f" AND {identifier(lower)} >= ?" if lower else ""
    where += f" AND {identifier(upper)} < ?" if upper else ""
    limit = " LIMIT ?" if limited else ""
    return f"SELECT {', '.join(map(identifier, columns))} FROM {keyspace}.{table} WHERE {where}{limit}"  # noqa: S608


def scan(keyspace: str, table: Table, *, writetime: bool) -> str:
    """All columns, then with `writetime` that of each regular column, in their order."""
    columns = [identifier(c) for c in table.columns]
    if writetime:
        columns += [f"writetime({identifier(c)})" for c in regular(table)]
    return f"SELECT {', '.join(columns)} FROM {keyspace}.{table.name}"  # noqa: S608


def regular(table: Table) -> tuple[str, ...]:
    """Columns outside the primary key."""
    return tuple(c for c in table.columns if c not in table.primary_key)


def _equal(columns: tuple[str, ...]) -> str:
    return " AND ".join(f"{identifier(c)} = ?" for c in columns)
