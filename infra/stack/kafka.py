"""Apache Kafka, one node in KRaft mode: broker and controller in one process, loopback only.

Every role logs in as its own user (SASL/SCRAM) and may do what `infra.kafka_grants` says (StandardAuthorizer). The
broker's own user, by PLAIN with a password in its configuration, is the only one above that: it makes the others.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Sequence

from infra.settings import ENV_PREFIX, Settings
from infra.stack import credentials, install, probes, trial_ca
from infra.stack.errors import StackError

HEAP = "-Xmx384m"

_LOG4J2 = """\
status = ERROR
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = OUT
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""


def prepare(settings: Settings) -> None:
    """Jars, configuration, and once the formatting of the storage. Idempotent. Raises StackError."""
    classpath(settings)
    folder = settings.home / "conf"
    folder.mkdir(parents=True, exist_ok=True)
    credentials.write_private(folder / "kafka.properties", properties(settings))
    (folder / "kafka-log4j2.properties").write_text(_LOG4J2, encoding="ascii")
    if not (settings.home / "data/kafka/meta.properties").exists():
        (settings.home / "data/kafka").mkdir(parents=True, exist_ok=True)
        _format(settings)


def properties(settings: Settings) -> str:
    """server.properties: durable and small on one node."""
    broker, controller = settings.stack_kafka_port, settings.stack_kafka_controller_port
    user, password = credentials.broker(settings.home)
    login = f'username="{user}" password="{password}"'
    plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required {login} user_{user}="{password}";'
    kind = "SASL_SSL" if settings.stack_tls else "SASL_PLAINTEXT"
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"CLIENT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"CLIENT://127.0.0.1:{broker}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": f"CLIENT:{kind},CONTROLLER:{kind}",
        "inter.broker.listener.name": "CLIENT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": plain,
        "listener.name.client.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": plain,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{user}",
        "log.dirs": str(settings.home / "data/kafka"),
        "auto.create.topics.enable": "false",  # topics are data of the migration command
        "delete.topic.enable": "false",  # the log is the truth
        "num.partitions": "1",
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "offsets.retention.minutes": "2147483647",  # a group that was away for long goes on where it was
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "log.segment.bytes": str(256 << 20),
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "2",
        **(_tls(settings) if settings.stack_tls else {}),
    }
    return "".join(f"{k}={v}\n" for k, v in values.items())


def _tls(settings: Settings) -> dict[str, str]:
    files = trial_ca.for_servers(settings)
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(files.both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files.ca),
        "ssl.enabled.protocols": "TLSv1.3,TLSv1.2",
    }


def classpath(settings: Settings) -> str:
    """The jars, as Java wants them."""
    return f"{install.jars(settings, 'kafka')}/*"


def _java(settings: Settings) -> list[str]:
    logging = settings.home / "conf/kafka-log4j2.properties"
    flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"]
    return [install.java(), HEAP, *flags, f"-Dlog4j2.configurationFile={logging}", "-cp", classpath(settings)]


def _format(settings: Settings) -> None:
    cluster = base64.urlsafe_b64encode(b"\0" + os.urandom(15)).decode().rstrip("=")
    tool = ["kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", cluster]
    tool += ["--config", str(settings.home / "conf/kafka.properties")]
    done = subprocess.run([*_java(settings), *tool], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise StackError(f"Kafka's storage could not be formatted: {lines[-1] if lines else done.returncode}")


def command(settings: Settings) -> Sequence[str]:
    """The broker's command line."""
    return [*_java(settings), "kafka.Kafka", str(settings.home / "conf/kafka.properties")]


def probe(settings: Settings) -> None:
    """Raises NotReady until the broker is registered."""
    trust = probes.trust(settings.kafka_ca_file)
    probes.kafka("127.0.0.1", settings.stack_kafka_port, *credentials.broker(settings.home), trust=trust)


def finish(settings: Settings) -> None:
    """Users and what they may, by a process of its own: the supervisor holds no driver. Topics are the migration's."""
    command = [sys.executable, "-m", "infra.stack.kafka_users"]
    environment = {**os.environ, f"{ENV_PREFIX}HOME": str(settings.home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise StackError(f"Kafka's users could not be made: {lines[-1] if lines else done.returncode}")
