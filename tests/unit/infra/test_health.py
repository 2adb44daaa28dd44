import http.client
import json
from collections.abc import Iterator

import pytest

from infra.health import HealthServer


class Process:
    kafka = True
    alive = True


@pytest.fixture
def served() -> Iterator[tuple[Process, HealthServer]]:
    process = Process()
    server = HealthServer(
        "127.0.0.1",
        0,
        ready=lambda: {"kafka": process.kafka, "s3": True},
        figures=lambda: {"spool_backlog": 3},
        live=lambda: process.alive,
    )
    yield process, server
    server.close()


def get(server: HealthServer, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_ready_follows_its_checks_and_shows_the_figures(served: tuple[Process, HealthServer]) -> None:
    process, server = served
    status, body = get(server, "/health/ready")
    assert status == 200
    assert json.loads(body) == {"ready": True, "checks": {"kafka": True, "s3": True}, "spool_backlog": 3}
    process.kafka = False
    status, body = get(server, "/health/ready")
    assert status == 503
    assert json.loads(body)["checks"]["kafka"] is False


def test_live_follows_its_callable(served: tuple[Process, HealthServer]) -> None:
    process, server = served
    assert get(server, "/health/live") == (200, b'{"live": true}')
    process.alive = False
    assert get(server, "/health/live")[0] == 503


def test_metrics_are_prometheus_text_and_the_rest_is_not_there(served: tuple[Process, HealthServer]) -> None:
    _, server = served
    status, body = get(server, "/metrics")
    assert status == 200
    assert b"sijil_library_log_lines_total" in body or b"python_info" in body
    assert get(server, "/nothing")[0] == 404
