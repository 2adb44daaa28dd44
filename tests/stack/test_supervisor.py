"""The supervisor with the real servers: order, restarts, its own death, ports, data."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from infra.settings import ROLES
from infra.stack import probes, seaweedfs
from infra.stack.errors import NotReady
from tests.local_stack import SERVERS, LocalStack

pytestmark = [pytest.mark.connected, pytest.mark.slow]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    stack = LocalStack.at(tmp_path_factory.mktemp("supervisor") / ".sijil")
    yield stack
    stack.remove()


@pytest.fixture
def up(own: LocalStack) -> LocalStack:
    if own.supervisor is None or own.supervisor.poll() is not None:
        own.start(SERVERS)
    return own


def wait_for(check: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if check():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {within_s} s")


def health(stack: LocalStack) -> dict[str, str]:
    return {p["name"]: p["health"] for p in json.loads(stack.sijil("status", "--json").stdout or "[]")}


def processes_of(stack: LocalStack) -> list[int]:
    """Every process whose command line names this home, but for those who only look."""
    found = []
    for p in psutil.process_iter(["pid", "cmdline", "environ"]):
        of_home = (p.info["environ"] or {}).get("SIJIL_HOME") == str(stack.home)
        if of_home and p.pid != os.getpid() and p.status() != psutil.STATUS_ZOMBIE:
            found.append(p.pid)
    return found


def test_status_lists_every_part_with_pid_port_memory_and_health(up: LocalStack) -> None:
    done = up.sijil("status", "--json")
    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert [p["name"] for p in shown] == list(SERVERS)
    assert all(p["health"] == "ready" and psutil.pid_exists(p["pid"]) and p["memory_mb"] > 20 for p in shown)
    table = up.sijil("status").stdout
    assert "cassandra" in table
    assert str(up.settings("admin").cassandra_port) in table


def test_secrets_are_for_their_owner_alone_and_each_role_gets_only_its_own(up: LocalStack) -> None:
    folder = up.home / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    assert {r for r in ROLES if up.settings(r).patient_secret} == {"worker", "hl7"}  # who makes patient keys
    assert {r for r in ROLES if up.settings(r).search_secret} == {"gateway", "api"}
    assert len({up.settings(r).cassandra_password for r in ROLES}) == len(ROLES)
    assert len({up.settings(r).s3_secret_key for r in ROLES}) == len(ROLES)


def test_every_port_is_on_loopback_alone(up: LocalStack) -> None:
    pids = set(up.pids().values())
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in pids]
    assert len(listening) >= 10
    assert {str(c.laddr.ip) for c in listening if c.laddr} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_the_password_that_cassandra_comes_with_opens_nothing(up: LocalStack) -> None:
    with pytest.raises(probes.CqlError) as refused:
        probes.cassandra("127.0.0.1", up.settings("admin").cassandra_port, "cassandra", "cassandra")
    assert refused.value.code == probes.Cql.BAD_CREDENTIALS


def test_what_is_behind_the_s3_door_asks_for_a_token(up: LocalStack) -> None:
    ports = seaweedfs.ports(up.settings("admin"))
    for port, path in ((ports["filer.port"], "/buckets/sijil-packs/x"), (ports["volume.port"], "/3,01637037d6")):
        for method in ("GET", "PUT", "DELETE"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request(method, path, body=b"" if method == "PUT" else None)
            assert connection.getresponse().status == 401, (method, path)
            connection.close()


def test_a_second_up_of_the_same_home_is_refused(up: LocalStack) -> None:
    done = up.sijil("up", "--detach")
    assert done.returncode == 1
    assert "is up already" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert set(health(up).values()) == {"ready"}


@pytest.mark.parametrize("part", SERVERS)
def test_a_killed_part_comes_back_and_the_others_stay(up: LocalStack, part: str) -> None:
    before = up.pids()
    os.kill(before[part], signal.SIGKILL)
    wait_for(lambda: up.pids().get(part) not in (None, before[part]), 60, f"{part} is started again")
    wait_for(lambda: health(up).get(part) == "ready", 180, f"{part} is ready again")
    after = up.pids()
    assert {n: p for n, p in after.items() if n != part} == {n: p for n, p in before.items() if n != part}
    shown = json.loads(up.sijil("status", "--json").stdout)
    assert next(p["restarts"] for p in shown if p["name"] == part) == 1


def test_servers_end_with_a_killed_supervisor_and_the_next_up_starts_afresh(up: LocalStack) -> None:
    assert up.supervisor is not None
    before = up.run.children()
    # one that does not heed the kernel's SIGTERM: the next `up` has to find and end it
    stubborn = before["kafka"]
    os.kill(stubborn.pid, signal.SIGSTOP)
    up.supervisor.kill()
    up.supervisor.wait()
    up.supervisor = None
    wait_for(lambda: not any(before[p].alive() for p in ("cassandra", "seaweedfs")), 120, "they end")
    assert stubborn.alive()
    assert health(up)["kafka"] == "orphaned"
    up.start(SERVERS)
    assert not stubborn.alive()
    assert set(health(up).values()) == {"ready"}


def test_a_process_that_has_got_the_pid_of_an_old_child_is_left_alone(up: LocalStack) -> None:
    up.stop()
    bystander = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (up.home / "run" / "kafka.pid").write_text(f"{bystander.pid} 12345 some-other-boot\n")
        assert "nothing was running" in up.sijil("down").stdout
        assert bystander.is_running()
    finally:
        bystander.kill()
        bystander.wait()


def test_data_outlives_down_and_up(up: LocalStack) -> None:
    assert up.sijil("ae", "add", "KEPT", "10.1.1.1", "104").returncode == 0
    up.stop()
    assert processes_of(up) == []
    assert up.sijil("status").returncode == 1
    up.start(SERVERS)
    assert "KEPT" in up.sijil("ae", "list").stdout


@pytest.mark.parametrize(
    "setting", ["stack_kafka_port", "cassandra_port", "stack_s3_port", "stack_s3_base_port", "http_port", "dicom_port"]
)
def test_a_taken_port_is_one_line_that_names_the_setting(own: LocalStack, setting: str) -> None:
    own.stop()
    port = getattr(own.settings("admin"), setting)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = own.sijil("up", "--detach")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert f"port {port} for" in line
    assert f"by {psutil.Process().name()} (pid {os.getpid()})" in line
    assert f"SIJIL_{setting.upper()}" in line
    assert processes_of(own) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"SIJIL_STACK_MIN_DISK_MB": str(10**9)}, "MB of disk are free"),
        ({"SIJIL_STACK_MIN_MEMORY_MB": str(10**7)}, "MB of memory are available"),
        ({"JAVA_HOME": "/nonexistent"}, "no Java found: install Java 17"),
        ({"SIJIL_HTTP_PORT": "eighty"}, "SIJIL_HTTP_PORT must be int, not 'eighty'"),
    ],
)
def test_what_the_machine_lacks_is_one_line_that_says_what_to_do(
    own: LocalStack, changed: dict[str, str], told: str
) -> None:
    own.stop()
    done = own.sijil("up", "--detach", "--only", ",".join(SERVERS), changed=changed)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert told in line
    assert processes_of(own) == []


def test_an_unknown_part_is_refused(own: LocalStack) -> None:
    done = own.sijil("up", "--only", "zookeeper")
    assert done.returncode == 1
    assert "there is no part 'zookeeper': choose from kafka" in done.stderr
    with pytest.raises(NotReady):
        probes.kafka("127.0.0.1", own.settings("admin").stack_kafka_port, "nobody", "")
