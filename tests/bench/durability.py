"""What the durable settings of one node cost: the same writes with and without, on the same servers, in one run."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import boto3
from botocore.config import Config
from cassandra.cluster import Session
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.cassandra import open_session
from infra.kafka import connection
from infra.settings import Settings
from infra.stack import install, seaweedfs
from tests.bench.clients import Latency
from tests.local_stack import superuser

ROUNDS = 200


def _timed(step: Callable[[], object], rounds: int = ROUNDS) -> Latency:
    for _ in range(10):
        step()
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        took.append(time.perf_counter() - started)
    return Latency.of(took)


def kafka(settings: Settings) -> dict[str, Latency]:
    """One acknowledged record of 1 KB, with `flush.messages=1` and with Kafka's default."""
    admin = AdminClient(connection(superuser(settings)))
    names = {"flush.messages=1": {"flush.messages": "1"}, "default": {}}
    found = {}
    for label, config in names.items():
        topic = f"bench-{secrets.token_hex(4)}"
        admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result()
        producer = Producer(connection(superuser(settings)) | {"acks": "all", "linger.ms": 0})

        def send(producer: Any = producer, topic: str = topic) -> None:
            producer.produce(topic, b"x" * 1000)
            if producer.flush(10):
                raise RuntimeError("a record was not acknowledged")

        found[label] = _timed(send)  # the broker lets nobody delete a topic; the bench's whole home goes at its end
    return found


def cassandra(settings: Settings) -> dict[str, Latency]:
    """One row of 200 bytes, through the group commit log and into a keyspace with `durable_writes = false`."""
    cluster, session = open_session(settings)
    found = {}
    try:
        for label, durable in (("commit log, group 10 ms", "true"), ("durable_writes=false", "false")):
            keyspace = f"bench_{secrets.token_hex(4)}"
            session.execute(
                f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
                f" AND durable_writes = {durable}"
            )
            try:
                found[label] = _rows(session, keyspace)
            finally:
                session.execute(f"DROP KEYSPACE {keyspace}")
    finally:
        cluster.shutdown()
    return found


def _rows(session: Session, keyspace: str) -> Latency:
    session.execute(f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, v text)")
    insert = session.prepare(f"INSERT INTO {keyspace}.t (k, v) VALUES (?, ?)")
    n = iter(range(1_000_000))
    return _timed(lambda: session.execute(insert, (next(n), "x" * 200)))


def s3(settings: Settings) -> dict[str, Latency]:
    """A pack of 8 MiB into SeaweedFS, with fsync and without."""
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    bucket = f"bench-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=bucket)
    body = secrets.token_bytes(8 << 20)
    digest = hashlib.sha256(body).hexdigest()
    n = iter(range(1_000_000))

    def put() -> None:
        client.put_object(Bucket=bucket, Key=f"pack-{next(n)}", Body=body, Metadata={"sha256": digest})

    found = {}
    try:
        for label, flag in (("fsync", "-fsync"), ("no fsync", "-fsync=false")):
            _filer_rule(settings, flag)
            found[label] = _timed(put, rounds=20)
    finally:
        _filer_rule(settings, "-fsync")
        for key in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in key.get("Contents", []):
                client.delete_object(Bucket=bucket, Key=item["Key"])
        with suppress(client.exceptions.ClientError):
            client.delete_bucket(Bucket=bucket)
    return found


def _filer_rule(settings: Settings, flag: str) -> None:
    ports = seaweedfs.ports(settings)
    shell = [install.weed(), "shell", f"-master=127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}"]
    shell.append(f"-filer=127.0.0.1:{ports['filer.port']}.{ports['filer.port.grpc']}")
    rule = f"fs.configure -locationPrefix=/buckets/ {flag} -apply\nexit\n"
    subprocess.run(shell, input=rule, capture_output=True, text=True, check=True, timeout=60)
