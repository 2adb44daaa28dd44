"""Which keyspace holds the read models that answer: one row of `sijil_state`, read by the api and the worker.

A rebuild fills a fresh keyspace and switches here; the old one stays until an operator drops it.
"""

from __future__ import annotations

from infra import clock
from infra.ports import Select, Tables
from schemas.tables import STATE_KEYSPACE, VIEWS_KEYSPACE, Upsert

_TABLE = "active_views"
_ROW = {"name": "active"}


async def active_keyspace(tables: Tables, state: str = STATE_KEYSPACE) -> str:
    """Name of the keyspace that answers; the first one until a rebuild has switched. Raises Transient."""
    rows = await tables.with_keyspace(state).select(Select(_TABLE, _ROW, ("keyspace_name",)))
    return rows[0]["keyspace_name"] if rows else VIEWS_KEYSPACE


async def activate(tables: Tables, keyspace: str, state: str = STATE_KEYSPACE) -> None:
    """Let `keyspace` answer from now on. Raises Transient."""
    moment = clock.now()
    columns = {"keyspace_name": keyspace, "switched": moment}
    write = Upsert(_TABLE, _ROW, columns, int(moment.timestamp() * 1_000_000))
    await tables.with_keyspace(state).apply([write])
