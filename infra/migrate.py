"""Topics, keyspaces, tables, grants and buckets: made where missing, compared where there, never changed silently.

A numbered file `infra/cql/NNNN_name.cql` runs once; its SHA-256 is kept in `sijil_state.migrations`, and a file that
changed afterwards is refused. The read models are different: they are derived, so they have no history of changes. What
is there must equal `schemas.tables`; if it does not, `sijil rebuild` fills a fresh keyspace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cassandra.cluster import Session

from infra import buckets, clock, kafka_topics
from infra.cassandra import mapped, open_session
from infra.settings import Role, Settings
from schemas.errors import Defect
from schemas.tables import STATE_KEYSPACE, STATE_TABLES, TABLES, VIEWS_KEYSPACE, Table

FOLDER: Final = Path(__file__).with_name("cql")
VIEWS_FILE: Final = "0002_views.cql"
DDL_TIMEOUT_S: Final = 60.0

_MIGRATIONS: Final = f"{STATE_KEYSPACE}.migrations"

Announce = Callable[[str], None]

# Only projectors write read models (design, rule 1); whoever answers reads them.
GRANTS: Final[Mapping[Role, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    # role: (on the views, on the state)
    "worker": (("SELECT", "MODIFY"), ("SELECT", "MODIFY")),
    "archiver": (("SELECT",), ("SELECT",)),
    "delivery": (("SELECT",), ("SELECT", "MODIFY")),
    "api": (("SELECT",), ("SELECT", "MODIFY")),
    "gateway": (("SELECT",), ("SELECT",)),
    "hl7": (("SELECT",), ("SELECT", "MODIFY")),
    "operator": (("SELECT",), ("SELECT",)),
}


def run(settings: Settings, announce: Announce = lambda line: None) -> None:
    """Everything, with the admin's settings. Idempotent.

    Raises Defect when something is there but not as it should be, Transient when a server is away.
    """
    kafka_topics.ensure(settings, announce)
    buckets.ensure(settings, announce)
    with _session(settings) as session:
        tables(session, settings, announce)


def tables(session: Session, settings: Settings, announce: Announce = lambda line: None) -> None:
    """Keyspaces, the numbered files, and the comparison with `schemas.tables`."""
    _keyspace(session, settings, STATE_KEYSPACE)
    _execute(
        session,
        f"CREATE TABLE IF NOT EXISTS {_MIGRATIONS} (number int PRIMARY KEY, name text, sha256 text, applied timestamp)",
    )
    applied = {row[0]: (row[1], row[2]) for row in _execute(session, f"SELECT number, name, sha256 FROM {_MIGRATIONS}")}
    for number, path in files():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if number in applied:
            if path.name != VIEWS_FILE and applied[number] != (path.name, sha256):
                raise Defect(
                    f"migration {path.name} was applied as {applied[number][0]} with other content: files that ran"
                    " never change; put it back and write a new one"
                )
            continue
        if path.name == VIEWS_FILE:
            _keyspace(session, settings, VIEWS_KEYSPACE)
        for statement in statements(path.read_text(encoding="utf-8")):
            _execute(session, statement)
        insert = f"INSERT INTO {_MIGRATIONS} (number, name, sha256, applied) VALUES (%s, %s, %s, %s)"
        _execute(session, insert, (number, path.name, sha256, clock.now()))
        announce(f"applied {path.name}")
    _compare(session, STATE_KEYSPACE, STATE_TABLES)
    active = _active(session)
    _compare(session, active, TABLES)
    _grant(session, settings, active)


def create_views(settings: Settings, keyspace: str) -> None:
    """A fresh keyspace with every read model and its grants: what `rebuild` fills. With the admin's settings.

    Raises Defect if a keyspace of that name is there with other tables.
    """
    with _session(settings) as session:
        _keyspace(session, settings, keyspace)
        for table in TABLES:
            _execute(session, table.create(keyspace))
        _compare(session, keyspace, TABLES)
        _grant(session, settings, keyspace)


def drop_views(settings: Settings, keyspace: str) -> None:
    """Drop a keyspace of read models that answers no more, with the admin's settings. Raises Defect for the active."""
    with _session(settings) as session:
        if not keyspace.startswith(VIEWS_KEYSPACE) or keyspace == _active(session):
            raise Defect(f"{keyspace} is in use, or no keyspace of read models")
        _execute(session, f"DROP KEYSPACE IF EXISTS {keyspace}")


def files(folder: Path = FOLDER) -> list[tuple[int, Path]]:
    """(number, path) of the migrations in order. Raises Defect for a number given twice."""
    found = sorted((int(p.name.split("_")[0]), p) for p in folder.glob("[0-9]*_*.cql"))
    if len({number for number, _ in found}) != len(found):
        raise Defect(f"two migrations in {folder} have the same number")
    return found


def statements(text: str) -> list[str]:
    """The statements of a CQL file: `--` comments dropped, cut at each `;` outside of a string."""
    found, current, quoted = [], "", False
    for line in text.splitlines():
        if not quoted and line.lstrip().startswith("--"):
            continue
        for character in line + "\n":
            quoted ^= character == "'"
            if character == ";" and not quoted:
                found.append(current.strip())
                current = ""
            else:
                current += character
    return [s for s in (*found, current.strip()) if s]


def _keyspace(session: Session, settings: Settings, name: str) -> None:
    if settings.cassandra_local_dc not in {row[0] for row in _execute(session, "SELECT data_center FROM system.local")}:
        raise Defect(f"Cassandra is in another data centre than SIJIL_CASSANDRA_LOCAL_DC={settings.cassandra_local_dc}")
    _execute(
        session,
        f"CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {{'class': 'NetworkTopologyStrategy',"
        f" '{settings.cassandra_local_dc}': {settings.cassandra_replication}}} AND durable_writes = true",
    )


def _grant(session: Session, settings: Settings, views: str) -> None:
    if not settings.cassandra_username:  # a cluster without logins knows no grants
        return
    granted = _execute(session, "SELECT role, resource, permissions FROM system_auth.role_permissions")
    has = {
        (role, resource.removeprefix("data/"), permission)
        for role, resource, permissions in granted
        for permission in permissions
    }
    for role, (on_views, on_state) in GRANTS.items():
        for permissions, keyspace in ((on_views, views), (on_state, STATE_KEYSPACE)):
            for permission in permissions:
                if (f"sijil_{role}", keyspace, permission) not in has:
                    _execute(session, f"GRANT {permission} ON KEYSPACE {keyspace} TO sijil_{role}")


def _active(session: Session) -> str:
    query = f"SELECT keyspace_name FROM {STATE_KEYSPACE}.active_views WHERE name = 'active'"
    rows = list(_execute(session, query))
    return str(rows[0][0]) if rows else VIEWS_KEYSPACE


def _compare(session: Session, keyspace: str, wanted: tuple[Table, ...]) -> None:
    """Raises Defect at the first column that differs from `schemas.tables`."""
    query = "SELECT table_name, column_name, type, kind, position FROM system_schema.columns WHERE keyspace_name = %s"
    there: dict[str, dict[str, tuple[str, str, int]]] = {}
    for table_name, column, cql_type, kind, position in _execute(session, query, (keyspace,)):
        there.setdefault(table_name, {})[column] = (cql_type, kind, position)
    for table in wanted:
        found, expected = there.get(table.name, {}), _columns(table)
        for column in expected.keys() | found.keys():
            if expected.get(column) != found.get(column):
                advice = (
                    "put it back as schemas/tables.py has it"
                    if keyspace == STATE_KEYSPACE
                    else "start with `sijil up --no-migrate` and let `sijil rebuild` fill a fresh keyspace"
                )
                raise Defect(
                    f"{keyspace}.{table.name}.{column} is {_told(found.get(column))}, and should be"
                    f" {_told(expected.get(column))}: {advice}"
                )


def _columns(table: Table) -> dict[str, tuple[str, str, int]]:
    """Column → (type, kind, position), as system_schema.columns has them."""
    keys = {c: ("partition_key", i) for i, c in enumerate(table.partition_key)}
    keys |= {c: ("clustering", i) for i, c in enumerate(table.clustering)}
    return {c: (t, *keys.get(c, ("regular", -1))) for c, t in table.columns.items()}


def _told(column: tuple[str, str, int] | None) -> str:
    return "not there" if column is None else f"{column[0]} ({column[1]})"


@contextmanager
def _session(settings: Settings) -> Iterator[Session]:
    cluster, session = open_session(settings)
    try:
        yield session
    finally:
        cluster.shutdown()


def _execute(session: Session, statement: str, values: tuple[Any, ...] = ()) -> Any:
    try:
        return session.execute(statement, values or None, timeout=DDL_TIMEOUT_S)
    except Exception as e:
        raise mapped(e, statement[:60].replace("\n", " ")) from e
