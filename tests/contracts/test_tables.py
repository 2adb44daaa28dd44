"""The Tables contract, in memory and on Cassandra; what only a server can show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from infra.cassandra import CassandraTables, open_session
from infra.memory import MemoryTables
from infra.ports import Select, Tables
from infra.settings import Settings
from schemas.tables import STATE_TABLES, Upsert
from tests.contracts.tables import DEFINITIONS, TablesContract, row_key, run

ALL = STATE_TABLES + DEFINITIONS


class TestMemoryTables(TablesContract):
    @pytest.fixture
    def tables(self) -> Tables:
        return MemoryTables("contract", ALL)


@pytest.fixture(scope="module")
def cassandra(admin: Settings) -> Iterator[CassandraTables]:
    cluster, session = open_session(admin)
    keyspaces = ("contract", "contract_other")
    for keyspace in keyspaces:
        session.execute(f"DROP KEYSPACE IF EXISTS {keyspace}")
        session.execute(
            f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy', "
            f"'{admin.cassandra_local_dc}': 1}}"
        )
        for table in ALL:
            session.execute(table.create(keyspace))
    tables = CassandraTables.connect(admin, "contract", ALL)
    yield tables
    tables.close()
    for keyspace in keyspaces:
        session.execute(f"DROP KEYSPACE {keyspace}")
    cluster.shutdown()


@pytest.mark.connected
class TestCassandraTables(TablesContract):
    @pytest.fixture
    def tables(self, cassandra: CassandraTables) -> Tables:
        return cassandra

    def test_one_wake_up_for_many_statements(self, tables: Tables, key: str) -> None:
        """A wake-up per statement once filled the loop's self-pipe, and a SIGTERM was lost."""
        woken = 0

        async def counted() -> None:
            loop = asyncio.get_running_loop()
            original = loop.call_soon_threadsafe

            def count(*args: object, **kwargs: object) -> asyncio.Handle:
                nonlocal woken
                woken += 1
                return original(*args, **kwargs)  # type: ignore[arg-type]

            await tables.apply([Upsert("shapes", row_key(key), {}, 1)])  # prepares, on a thread
            loop.call_soon_threadsafe = count  # type: ignore[method-assign]
            await tables.apply([Upsert("shapes", row_key(f"{key}{i}"), {"small": i}, 1) for i in range(300)])
            await tables.select_many([Select("shapes", {"key": f"{key}{i}", "token": 1}) for i in range(300)])

        run(counted())
        assert woken <= 3  # one each, and one for the SELECT's first preparing

    def test_a_cancelled_call_is_left_alone_by_late_answers(self, tables: Tables, key: str) -> None:
        async def cancelled() -> None:
            writes = [Upsert("shapes", row_key(f"{key}{i}"), {"small": i}, 1) for i in range(200)]
            task = asyncio.create_task(tables.apply(writes))
            await asyncio.sleep(0.003)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(cancelled())
        run(tables.apply([Upsert("shapes", row_key(key), {}, 1)]))
