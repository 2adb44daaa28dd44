"""Migrations on the real servers: again without change, refused on drift, and what each role may do afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cassandra import Unauthorized
from cassandra.cluster import Session
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from infra import buckets, kafka_topics, migrate, s3
from infra.cassandra import open_session
from infra.kafka import connection
from infra.settings import Role, Settings
from schemas.errors import Defect
from schemas.tables import STATE_KEYSPACE, TABLES, VIEWS_KEYSPACE
from schemas.topics import TOPICS
from tests.local_stack import LocalStack, superuser

pytestmark = pytest.mark.connected

PROPOSAL = "(month, study_uid, patient_key) VALUES ('202501', '1', 'k')"


@contextlib.contextmanager
def session_of(settings: Settings) -> Iterator[Session]:
    cluster, session = open_session(settings)
    try:
        yield session
    finally:
        cluster.shutdown()


def test_a_second_run_changes_nothing(admin: Settings) -> None:
    said: list[str] = []
    migrate.run(admin, said.append)
    assert said == []


def test_all_topics_are_there_with_their_configs(admin: Settings) -> None:
    there = AdminClient(connection(admin)).list_topics(timeout=20).topics
    assert {t.name for t in TOPICS} <= set(there)
    assert {len(there[t.name].partitions) for t in TOPICS} == {admin.kafka_partitions}


def test_other_partitions_than_the_topic_has_are_refused(stack: LocalStack) -> None:
    with pytest.raises(Defect, match="has 6 partitions, SIJIL_KAFKA_PARTITIONS says 7"):
        kafka_topics.ensure(stack.settings("admin", kafka_partitions=7))
    with pytest.raises(Defect, match="1 replicas, SIJIL_KAFKA_REPLICATION says 3"):
        kafka_topics.ensure(stack.settings("admin", kafka_replication=3))


def test_a_changed_topic_config_is_refused(admin: Settings) -> None:
    client = AdminClient(connection(superuser(admin)))  # the administrator may not change what is kept

    def alter(operation: Any, value: str) -> None:
        entry = ConfigEntry("retention.ms", value, incremental_operation=operation)
        resource = ConfigResource(ConfigResource.Type.TOPIC, "sijil.people", incremental_configs=[entry])
        for future in client.incremental_alter_configs([resource]).values():
            future.result(20)

    alter(AlterConfigOpType.SET, "1000000000")
    try:
        with pytest.raises(Defect, match=r"topic sijil\.people has retention\.ms=1000000000, it must be -1"):
            kafka_topics.ensure(admin)
    finally:
        alter(AlterConfigOpType.SET, "-1")
    kafka_topics.ensure(admin)


def test_a_changed_file_is_refused(admin: Settings) -> None:
    table = f"{STATE_KEYSPACE}.migrations"
    with session_of(admin) as session:
        ((right,),) = session.execute(f"SELECT sha256 FROM {table} WHERE number = 1")
        session.execute(f"UPDATE {table} SET sha256 = 'other' WHERE number = 1")
        try:
            with pytest.raises(Defect, match=r"0001_state\.cql was applied as 0001_state\.cql with other content"):
                migrate.tables(session, admin)
        finally:
            session.execute(f"UPDATE {table} SET sha256 = %s WHERE number = 1", (right,))
        migrate.tables(session, admin)


def test_a_read_model_that_differs_is_refused_with_what_to_do(admin: Settings) -> None:
    with session_of(admin) as session:
        session.execute(f"ALTER TABLE {VIEWS_KEYSPACE}.patients ADD shoe_size int")
        try:
            with pytest.raises(Defect, match=r"patients\.shoe_size is int .*should be not there: .*`sijil rebuild`"):
                migrate.tables(session, admin)
        finally:
            session.execute(f"ALTER TABLE {VIEWS_KEYSPACE}.patients DROP shoe_size")
        migrate.tables(session, admin)


def test_a_fresh_keyspace_has_every_read_model_and_its_grants(stack: LocalStack, admin: Settings) -> None:
    name = f"{VIEWS_KEYSPACE}_fresh"
    migrate.create_views(admin, name)
    migrate.create_views(admin, name)
    try:
        with session_of(stack.settings("worker")) as worker:
            for table in TABLES:
                worker.execute(f"SELECT * FROM {name}.{table.name} LIMIT 1")
            worker.execute(f"INSERT INTO {name}.identity_proposals {PROPOSAL}")
    finally:
        migrate.drop_views(admin, name)
    for kept in (VIEWS_KEYSPACE, STATE_KEYSPACE):
        with pytest.raises(Defect, match="is in use"):
            migrate.drop_views(admin, kept)


@pytest.mark.parametrize("role", ["api", "gateway", "archiver", "operator"])
def test_nobody_but_the_worker_writes_read_models(stack: LocalStack, role: Role) -> None:
    with session_of(stack.settings(role)) as session:
        session.execute(f"SELECT * FROM {STATE_KEYSPACE}.ae_titles")
        for statement in (
            f"INSERT INTO {VIEWS_KEYSPACE}.identity_proposals {PROPOSAL}",
            f"TRUNCATE {VIEWS_KEYSPACE}.identity_proposals",
            f"DROP KEYSPACE {VIEWS_KEYSPACE}",
            "CREATE KEYSPACE mine WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
            "CREATE ROLE me WITH SUPERUSER = true",
        ):
            with pytest.raises(Unauthorized):
                session.execute(statement)


@pytest.mark.parametrize("role", ["gateway", "api", "worker", "archiver", "operator"])
def test_no_key_in_daily_use_deletes_a_pack_or_lifts_the_policy(stack: LocalStack, admin: Settings, role: Role) -> None:
    bucket, key = admin.bucket_packs, f"tests/{role}"
    put = s3.client(stack.settings("gateway")).put_object(Bucket=bucket, Key=key, Body=b"pack")
    client = s3.client(stack.settings(role))
    named = {"Key": key, "VersionId": put["VersionId"]}
    calls: tuple[Callable[[], object], ...] = (
        lambda: client.delete_object(Bucket=bucket, Key=key),
        lambda: client.delete_object(Bucket=bucket, Key=key, VersionId=put["VersionId"]),
        lambda: client.delete_bucket_policy(Bucket=bucket),
        lambda: client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
        lambda: client.delete_bucket_lifecycle(Bucket=bucket),
        lambda: client.delete_bucket(Bucket=bucket),
    )
    for call in calls:
        with pytest.raises(ClientError, match="AccessDenied"):
            call()
    errors = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}, named]})["Errors"]  # type: ignore[list-item]
    assert [e["Code"] for e in errors] == ["AccessDenied"] * 2
    kept = s3.client(stack.settings("operator")).get_object(Bucket=bucket, Key=key)
    assert kept["Body"].read() == b"pack"


def test_a_lost_policy_is_put_back(admin: Settings) -> None:
    client = s3.client(admin)
    client.delete_bucket_policy(Bucket=admin.bucket_packs)
    said: list[str] = []
    buckets.ensure(admin, said.append)
    assert said == [f"bucket {admin.bucket_packs}: policy set"]


def test_a_bucket_that_is_not_versioned_is_refused(admin: Settings) -> None:
    client = s3.client(admin)
    client.delete_bucket_policy(Bucket=admin.bucket_anchors)
    client.put_bucket_versioning(Bucket=admin.bucket_anchors, VersioningConfiguration={"Status": "Suspended"})
    try:
        with pytest.raises(Defect, match="is not versioned"):
            buckets.ensure(admin)
    finally:
        client.put_bucket_versioning(Bucket=admin.bucket_anchors, VersioningConfiguration={"Status": "Enabled"})
    buckets.ensure(admin)
