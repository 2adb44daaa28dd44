"""The parts of the local stack: one table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from infra.settings import Settings
from infra.stack import cassandra, kafka, launch, probes, seaweedfs
from infra.stack.errors import StackError

SERVERS, WORKERS, DOORS = 0, 1, 2
TLS_PORTS = ("https_port", "viewer_https_port")


def reachable(host: str) -> str:
    """Where to call who binds to `host`."""
    return "127.0.0.1" if host in ("", "0.0.0.0") else host  # noqa: S104  # compared, not bound


def _nothing(settings: Settings) -> None:
    pass


@dataclass(frozen=True)
class Part:
    """One child process. Every callable gets the supervisor's settings."""

    name: str
    stage: int
    """SERVERS start first and stop last; DOORS stop first."""
    port: Callable[[Settings], int]
    """The port to show and to probe."""
    ports: Callable[[Settings], Sequence[tuple[str, int]]]
    """(setting that decides it, port) of all it listens on."""
    command: Callable[[Settings], Sequence[str]]
    probe: Callable[[Settings], None]
    """Raises NotReady until one real request of its protocol is answered."""
    prepare: Callable[[Settings], None] = field(default=_nothing)
    """Before its process starts: installs, writes configuration. Raises StackError."""
    finish: Callable[[Settings], None] = field(default=_nothing)
    """Once it answers: passwords, durable settings. Raises StackError."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """On top of the supervisor's."""
    folder: Callable[[Settings], Path] = field(default=lambda settings: settings.home)
    """Where its process runs."""
    stop_s: float = 15.0
    """From SIGTERM to SIGKILL."""
    health_port: Callable[[Settings], int | None] = field(default=lambda settings: None)
    """Where /health/ready and /health/live are, if it is one of ours."""
    health_host: Callable[[Settings], str] = field(default=lambda settings: reachable(settings.health_host))


def _process(role: str) -> Callable[[Settings], Sequence[str]]:
    return lambda settings: [sys.executable, "-m", "infra.cli", role]


def _door_gateway(settings: Settings) -> None:
    probes.http_ready(reachable(settings.health_host), settings.gateway_health_port)
    probes.dicom_echo(reachable(settings.dicom_host), settings.dicom_port, settings.ae_title)


def _of(*names: str) -> Callable[[Settings], Sequence[tuple[str, int]]]:
    return lambda settings: [(name, getattr(settings, name)) for name in names]


PARTS: tuple[Part, ...] = (
    Part(
        "kafka",
        SERVERS,
        port=lambda s: s.stack_kafka_port,
        ports=_of("stack_kafka_port", "stack_kafka_controller_port"),
        prepare=kafka.prepare,
        command=kafka.command,
        probe=kafka.probe,
        finish=kafka.finish,
        stop_s=30.0,
    ),
    Part(
        "cassandra",
        SERVERS,
        port=lambda s: s.cassandra_port,
        ports=_of("cassandra_port", "stack_cassandra_storage_port"),
        prepare=cassandra.prepare,
        command=cassandra.command,
        probe=cassandra.probe,
        finish=cassandra.finish,
        environment={launch.TIMER_SLACK: str(cassandra.TIMER_SLACK_NS)},
        stop_s=30.0,
    ),
    Part(
        "seaweedfs",
        SERVERS,
        port=lambda s: s.stack_s3_port,
        ports=lambda s: [
            ("stack_s3_port" if flag == "s3.port" else "stack_s3_base_port", port)
            for flag, port in seaweedfs.ports(s).items()
        ],
        prepare=seaweedfs.prepare,
        command=seaweedfs.command,
        probe=seaweedfs.probe,
        finish=seaweedfs.finish,
        # Collect often: pages that are warm are cheaper than fresh ones (11 instead of 15 to 19 ms a MB stored).
        environment={"GOMEMLIMIT": "384MiB", "GOGC": "25", launch.NICE: str(seaweedfs.NICE)},
        folder=seaweedfs.folder,
        stop_s=3.0,
    ),
    Part(
        "worker",
        WORKERS,
        port=lambda s: s.worker_health_port,
        ports=_of("worker_health_port"),
        command=_process("worker"),
        probe=lambda s: probes.http_ready(reachable(s.health_host), s.worker_health_port),
        health_port=lambda s: s.worker_health_port,
    ),
    Part(
        "archiver",
        WORKERS,
        port=lambda s: s.archiver_health_port,
        ports=_of("archiver_health_port"),
        command=_process("archiver"),
        probe=lambda s: probes.http_ready(reachable(s.health_host), s.archiver_health_port),
        environment={launch.NICE: str(seaweedfs.NICE)},  # as its uploads do
        health_port=lambda s: s.archiver_health_port,
    ),
    Part(
        "delivery",
        WORKERS,
        port=lambda s: s.delivery_health_port,
        ports=_of("delivery_health_port"),
        command=_process("delivery"),
        probe=lambda s: probes.http_ready(reachable(s.health_host), s.delivery_health_port),
        health_port=lambda s: s.delivery_health_port,
    ),
    Part(
        "gateway",
        DOORS,
        port=lambda s: s.dicom_port,
        ports=lambda s: _of(
            "dicom_port", "gateway_health_port", *(("dicom_tls_port",) if s.dicom_tls_certificate else ())
        )(s),
        command=_process("gateway"),
        probe=_door_gateway,
        health_port=lambda s: s.gateway_health_port,
        stop_s=30.0,
    ),
    Part(
        "hl7",
        DOORS,
        port=lambda s: s.hl7_port,
        ports=lambda s: _of("hl7_port", "hl7_health_port", *(("hl7_tls_port",) if s.hl7_tls_certificate else ()))(s),
        command=_process("hl7"),
        probe=lambda s: probes.http_ready(reachable(s.health_host), s.hl7_health_port),
        health_port=lambda s: s.hl7_health_port,
    ),
    Part(
        "api",
        DOORS,
        port=lambda s: s.http_port,
        ports=lambda s: _of("http_port", "viewer_port", *(TLS_PORTS if s.https_certificate else ()))(s),
        command=_process("api"),
        probe=lambda s: probes.http_ready(reachable(s.http_host), s.http_port),
        health_port=lambda s: s.http_port,
        health_host=lambda s: reachable(s.http_host),
        stop_s=30.0,
    ),
)
BY_NAME: Mapping[str, Part] = {p.name: p for p in PARTS}


def chosen(settings: Settings, only: Sequence[str] = ()) -> tuple[Part, ...]:
    """The parts to run: those of `only`, or all; never a server that the settings place elsewhere.

    Raises StackError for a name that is none.
    """
    for name in only:
        if name not in BY_NAME:
            raise StackError(f"there is no part {name!r}: choose from {', '.join(BY_NAME)}")
    return tuple(p for p in PARTS if (not only or p.name in only) and not external(settings, p.name))


def external(settings: Settings, name: str) -> bool:
    """Whether the settings point to a server that is not the local stack's."""
    match name:
        case "kafka":
            return settings.kafka_bootstrap != f"127.0.0.1:{settings.stack_kafka_port}"
        case "cassandra":
            return settings.cassandra_contact_points != "127.0.0.1"
        case "seaweedfs":
            url = urlsplit(settings.s3_endpoint)
            return (url.scheme, url.netloc) != (
                "https" if settings.stack_tls else "http",
                f"127.0.0.1:{settings.stack_s3_port}",
            )
        case _:
            return False
