"""Apache Cassandra, one node, loopback only, with passwords, and durable: a write is answered after its fsync."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.settings import Role, Settings
from infra.stack import credentials, install, probes, trial_ca
from infra.stack.credentials import Credentials
from infra.stack.errors import StackError

HEAP = ("-Xms256m", "-Xmx768m")
TIMER_SLACK_NS = 1_000_000
"""Its idle workers (SEPWorker) sleep 10 us at a time for at least 10 ms after each task, which cost 4 ms of CPU a query
and an eighth of a core at rest. With this they wake up ten times; a query asked of an idle node waits half of it.
"""

# What Cassandra's own start script opens for Java 17 (conf/jvm17-server.options of the 5.0 distribution).
_EXPORTS = """java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/sun.nio.ch
    java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server
    java.sql/java.sql java.rmi/sun.rmi.transport.tcp jdk.unsupported/sun.misc""".split()
_OPENS = """java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref
    java.base/jdk.internal.reflect java.base/jdk.internal.math java.base/jdk.internal.module
    java.base/jdk.internal.util.jar jdk.management/com.sun.management.internal java.base/sun.nio.ch java.base/java.io
    java.base/java.lang java.base/java.lang.reflect java.base/java.util java.base/java.nio""".split()

_LOGBACK = """\
<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <logger name="org.apache.cassandra.service.CassandraDaemon" level="INFO"/>
  <root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
"""


def prepare(settings: Settings) -> None:
    """Jars and configuration. Idempotent. Raises StackError."""
    install.jars(settings, "cassandra")
    conf, data = settings.home / "conf", settings.home / "data/cassandra"
    conf.mkdir(parents=True, exist_ok=True)
    (data / "triggers").mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and needs no library to write.
    (conf / "cassandra.yaml").write_text(json.dumps(configuration(settings), indent=1), encoding="utf-8")
    (conf / "cassandra-logback.xml").write_text(_LOGBACK, encoding="ascii")


def configuration(settings: Settings) -> Mapping[str, object]:
    """cassandra.yaml."""
    data = settings.home / "data/cassandra"
    seeds = f"127.0.0.1:{settings.stack_cassandra_storage_port}"
    return {
        "cluster_name": "sijil-local",
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "num_tokens": 16,
        "endpoint_snitch": "SimpleSnitch",
        "auto_bootstrap": False,
        "seed_provider": [
            {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [{"seeds": seeds}]}
        ],
        "listen_address": "127.0.0.1",
        "rpc_address": "127.0.0.1",
        "storage_port": settings.stack_cassandra_storage_port,
        "native_transport_port": settings.cassandra_port,
        "data_file_directories": [str(data / "data")],
        "commitlog_directory": str(data / "commitlog"),
        "saved_caches_directory": str(data / "saved_caches"),
        "hints_directory": str(data / "hints"),
        # passwords and roles; a changed grant counts after a minute, a changed password at once
        "authenticator": "PasswordAuthenticator",
        "authorizer": "CassandraAuthorizer",
        "role_manager": "CassandraRoleManager",
        "roles_validity": "60s",
        "permissions_validity": "60s",
        "credentials_validity": "2s",
        # durable: many writers share one fsync, nobody is answered before it
        "commitlog_sync": "group",
        "commitlog_sync_group_window": "10ms",
        "commitlog_segment_size": "16MiB",
        "commitlog_total_space": "512MiB",
        # small
        "memtable_heap_space": "128MiB",
        "memtable_offheap_space": "64MiB",
        "file_cache_size": "64MiB",
        "networking_cache_size": "32MiB",
        "key_cache_size": "16MiB",
        "concurrent_reads": 8,
        "concurrent_writes": 128,  # each waits for the group's fsync: 16 of them made 1,500 rows/s
        "concurrent_compactors": 1,
        "compaction_throughput": "32MiB/s",
        "native_transport_max_threads": 32,
        "hinted_handoff_enabled": False,
        "auto_snapshot": False,
        # a projector's batch is rows of one partition, or of small ones
        "batch_size_warn_threshold": "256KiB",
        "batch_size_fail_threshold": "2MiB",
        "unlogged_batch_across_partitions_warn_threshold": 100,
        "read_request_timeout": "10s",
        "range_request_timeout": "20s",
        "write_request_timeout": "10s",
        "request_timeout": "20s",
        **({"client_encryption_options": _tls(settings)} if settings.stack_tls else {}),
    }


def _tls(settings: Settings) -> Mapping[str, object]:
    files = trial_ca.for_servers(settings)
    return {
        "enabled": True,
        "optional": False,
        "ssl_context_factory": {"class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory"},
        "keystore": str(files.both),
        "truststore": str(files.ca),
        "accepted_protocols": ["TLSv1.3", "TLSv1.2"],
    }


def command(settings: Settings) -> Sequence[str]:
    """The node's command line."""
    home = settings.home
    return [
        install.java(),
        *HEAP,
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # C2 took a core for minutes, to make no query cheaper than this one does
        "-XX:+ExitOnOutOfMemoryError",
        "-Djdk.attach.allowAttachSelf=true",
        *(flag for package in _EXPORTS for flag in ("--add-exports", f"{package}=ALL-UNNAMED")),
        *(flag for package in _OPENS for flag in ("--add-opens", f"{package}=ALL-UNNAMED")),
        f"-Dcassandra.config=file://{home}/conf/cassandra.yaml",
        f"-Dlogback.configurationFile={home}/conf/cassandra-logback.xml",
        f"-Dcassandra.storagedir={home}/data/cassandra",
        f"-Dcassandra.triggers_dir={home}/data/cassandra/triggers",
        f"-Djava.io.tmpdir={_tmp(home)}",
        "-Dcassandra-foreground=yes",
        "-Dcassandra.set_sep_thread_name=false",  # a system call a task
        # one node alone waits for nobody
        "-Dcassandra.ring_delay_ms=0",
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.superuser_setup_delay_ms=0",
        "-cp",
        f"{install.jars(settings, 'cassandra')}/*",
        "org.apache.cassandra.service.CassandraDaemon",
    ]


def _tmp(home: Path) -> Path:
    folder = home / "data/cassandra/tmp"  # native libraries are unpacked there: /tmp may be mounted noexec
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _connect(settings: Settings, username: str, password: str) -> probes.Cql:
    trust = probes.trust(settings.cassandra_ca_file)
    return probes.Cql("127.0.0.1", settings.cassandra_port, username, password, timeout_s=20.0, trust=trust)


def _answers(settings: Settings, admin: Credentials) -> None:
    who = admin.cassandra_username, admin.cassandra_password
    probes.cassandra("127.0.0.1", settings.cassandra_port, *who, trust=probes.trust(settings.cassandra_ca_file))


def probe(settings: Settings) -> None:
    """Raises NotReady until a login works: ours, or on the very first start the one Cassandra comes with."""
    if _roles_file(settings).exists():
        admin = credentials.ensure(settings.home)["admin"]
        _answers(settings, admin)
        return
    try:
        _connect(settings, "cassandra", "cassandra").__exit__(None, None, None)
    except probes.CqlError as e:
        if e.code != probes.Cql.BAD_CREDENTIALS:
            raise
        # either the default role is not made yet, or it is gone already: then ours must do
        admin = credentials.ensure(settings.home)["admin"]
        _answers(settings, admin)


def finish(settings: Settings) -> None:
    """Roles with our passwords, and no default superuser. Idempotent; skipped while nothing has changed.

    Raises StackError when neither our password nor Cassandra's own opens it: the data are of other secrets.
    """
    roles = credentials.ensure(settings.home)
    wanted = hashlib.sha256(repr(sorted(roles.items())).encode()).hexdigest()
    marker = _roles_file(settings)
    if marker.exists() and marker.read_text(encoding="ascii") == wanted:
        return
    admin = roles["admin"]
    try:
        connection = _connect(settings, admin.cassandra_username, admin.cassandra_password)
    except probes.CqlError:
        try:
            with _connect(settings, "cassandra", "cassandra") as first:
                for statement in superuser_statements(admin):
                    first.execute(statement)
            connection = _connect(settings, admin.cassandra_username, admin.cassandra_password)
        except probes.CqlError as e:
            raise StackError(
                f"Cassandra refuses the password in {settings.home}/secrets/admin.env: its data were made with other"
                " secrets; bring that file back, or move <home>/data/cassandra away and run `sijil rebuild`"
            ) from e
    with connection:
        for statement in role_statements(roles):
            connection.execute(statement)
    marker.write_text(wanted, encoding="ascii")


def superuser_statements(admin: Credentials) -> list[str]:
    """What the superuser that Cassandra comes with does once: make ours."""
    return [_create(admin, superuser=True), _alter(admin)]


def role_statements(roles: Mapping[Role, Credentials]) -> list[str]:
    """What ours does: end the one Cassandra comes with, make a role each. What they may do is the migration's."""
    others = [who for who in roles.values() if who.role != "admin"]
    return ["DROP ROLE IF EXISTS cassandra", *(s for who in others for s in (_create(who), _alter(who)))]


def _roles_file(settings: Settings) -> Path:
    return settings.home / "data/cassandra/roles.sha256"


def _create(who: Credentials, *, superuser: bool = False) -> str:
    return (
        f"CREATE ROLE IF NOT EXISTS {who.cassandra_username} WITH PASSWORD = '{who.cassandra_password}'"
        f" AND LOGIN = true AND SUPERUSER = {str(superuser).lower()}"
    )


def _alter(who: Credentials) -> str:
    return f"ALTER ROLE {who.cassandra_username} WITH PASSWORD = '{who.cassandra_password}'"
