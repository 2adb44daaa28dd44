"""The stack's tables and pure parts: settings, credentials, parts, logs, statements."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.cli import sijil
from infra.settings import ROLES, Role, Settings, SettingsError, read_env_file
from infra.stack import cassandra, credentials, kafka, logs, parts, process, seaweedfs
from infra.stack.errors import StackError
from infra.stack.state import PartState, RunFolder, StackState
from schemas.errors import Invalid
from schemas.patient_keys import PatientSecrets


def test_no_two_ports_of_a_stack_are_the_same() -> None:
    tls = {f"SIJIL_{door}_CERTIFICATE": "x.pem" for door in ("HTTPS", "DICOM_TLS", "HL7_TLS")}
    settings = Settings.load("admin", {"SIJIL_HOME": "/nonexistent", **tls})
    ports = Counter(port for part in parts.PARTS for _, port in part.ports(settings))
    assert max(ports.values()) == 1
    names = {setting for part in parts.PARTS for setting, _ in part.ports(settings)}
    fields = {n for n in Settings.__dataclass_fields__ if n.endswith("_port")}
    assert names == fields


def test_an_offset_moves_every_port_that_is_not_set(tmp_path: Path) -> None:
    plain = Settings.load("admin", {"SIJIL_HOME": str(tmp_path)})
    moved = Settings.load("admin", {"SIJIL_HOME": str(tmp_path), "SIJIL_PORT_OFFSET": "100", "SIJIL_HTTP_PORT": "9000"})
    assert moved.http_port == 9000
    assert moved.cassandra_port == plain.cassandra_port + 100
    assert moved.kafka_bootstrap == f"127.0.0.1:{plain.stack_kafka_port + 100}"
    assert moved.s3_endpoint == f"http://127.0.0.1:{plain.stack_s3_port + 100}"


def test_environment_over_secrets_over_stack_env_over_default(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "stack.env").write_text("SIJIL_SITE=CAI\nSIJIL_HTTP_PORT=1\nSIJIL_DICOM_PORT=1\n")
    (tmp_path / "secrets/api.env").write_text("SIJIL_HTTP_PORT=2\nSIJIL_DICOM_PORT=2\n")
    given = Settings.load("api", {"SIJIL_HOME": str(tmp_path), "SIJIL_DICOM_PORT": "3"})
    assert (given.site, given.http_port, given.dicom_port) == ("CAI", 2, 3)
    assert Settings.load("gateway", {"SIJIL_HOME": str(tmp_path)}).http_port == 1


def test_a_value_of_the_wrong_kind_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SIJIL_QUIET_S must be float, not 'soon'"):
        Settings.load("worker", {"SIJIL_HOME": str(tmp_path), "SIJIL_QUIET_S": "soon"})


def test_secrets_are_not_in_the_settings_repr() -> None:
    shown = repr(Settings(cassandra_password="word", s3_secret_key="key", patient_secret="salt"))  # noqa: S106
    assert not any(secret in shown for secret in ("word'", "key'", "salt'"))


def test_credentials_are_made_once_and_kept(tmp_path: Path) -> None:
    first = credentials.ensure(tmp_path)
    assert credentials.ensure(tmp_path) == first
    assert set(first) == set(ROLES)
    (tmp_path / "secrets/worker.env").write_text("SIJIL_S3_ACCESS_KEY=ours\n")
    again = credentials.ensure(tmp_path)
    assert again["worker"].s3_access_key == "ours"
    assert again["api"] == first["api"]
    assert len(read_env_file(tmp_path / "secrets/worker.env")["SIJIL_PATIENT_SECRET"]) == 64


def test_who_may_read_a_dead_letter_has_its_one_key(tmp_path: Path) -> None:
    credentials.ensure(tmp_path)
    keys = {r: Settings.load(r, {"SIJIL_HOME": str(tmp_path)}).dead_letter_key for r in ROLES}
    assert {r for r, k in keys.items() if k} == {"worker", "archiver", "operator"}
    assert len({k for k in keys.values() if k}) == 1


def test_a_shared_secret_is_replaced_for_all_who_have_it_and_nothing_else_is(tmp_path: Path) -> None:
    credentials.ensure(tmp_path)

    def settings() -> dict[str, Settings]:
        return {role: Settings.load(role, {"SIJIL_HOME": str(tmp_path)}) for role in ROLES}

    before = settings()
    done = CliRunner().invoke(sijil, ["secrets", "rotate", "search"], env={"SIJIL_HOME": str(tmp_path)})
    assert (done.exit_code, "api and gateway" in done.output) == (0, True), done.output
    after = settings()
    assert {role for role in ROLES if after[role] != before[role]} == {"api", "gateway"}
    assert after["api"].search_secret == after["gateway"].search_secret != before["api"].search_secret
    assert replace(after["api"], search_secret="") == replace(before["api"], search_secret="")
    assert before["api"].search_secret not in "".join(f.read_text() for f in (tmp_path / "secrets").iterdir())
    assert credentials.ensure(tmp_path), "it is kept at the next start"
    assert settings() == after

    (tmp_path / "secrets/gateway.env").write_text("SIJIL_SITE=CAI-1\n")
    with pytest.raises(Invalid, match="replace it where it is set"):
        credentials.renew(tmp_path, "search_secret")
    assert settings()["api"] == after["api"], "all or none"


def test_a_new_patient_secret_stands_before_the_previous_one(tmp_path: Path) -> None:
    credentials.ensure(tmp_path)

    def rotate() -> Result:
        return CliRunner().invoke(sijil, ["secrets", "rotate", "patient"], env={"SIJIL_HOME": str(tmp_path)})

    def secrets() -> set[str]:
        roles: tuple[Role, ...] = ("hl7", "worker")
        return {Settings.load(role, {"SIJIL_HOME": str(tmp_path)}).patient_secret for role in roles}

    (first,) = secrets()
    done = rotate()
    assert (done.exit_code, "sijil retire-patient-secret" in done.output) == (0, True), done.output
    (both,) = secrets()
    assert PatientSecrets.parse(both).previous == PatientSecrets.parse(first).newest
    assert first not in done.output
    refused = rotate()
    assert isinstance(refused.exception, Invalid)
    assert "retire-patient-secret" in str(refused.exception)
    assert secrets() == {both}

    hl7 = tmp_path / "secrets/hl7.env"  # killed between two files
    hl7.write_text(hl7.read_text().replace(both, first))
    assert rotate().exit_code == 0
    assert secrets() == {both}


def test_no_role_but_admin_may_do_more_than_its_buckets_need(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    found = seaweedfs.identities(settings, credentials.ensure(tmp_path))
    actions = {i["name"]: i["actions"] for i in json.loads(json.dumps(found))["identities"]}
    assert "Admin" in actions.pop("sijil-admin")
    assert all(":" in a and "Admin" not in a for some in actions.values() for a in some)
    assert {n for n, some in actions.items() if f"Write:{settings.bucket_packs}" in some} == {
        "sijil-gateway",
        "sijil-api",
    }
    assert {n for n, some in actions.items() if f"Write:{settings.bucket_archive}" in some} == {"sijil-archiver"}
    assert not any(a.startswith("Write") for a in actions["sijil-operator"])


def test_the_servers_are_told_to_be_durable_and_to_stay_on_loopback(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    node = cassandra.configuration(settings)
    assert (node["commitlog_sync"], node["commitlog_sync_group_window"]) == ("group", "10ms")
    assert node["authenticator"] == "PasswordAuthenticator"
    assert node["authorizer"] == "CassandraAuthorizer"
    assert (node["listen_address"], node["rpc_address"]) == ("127.0.0.1", "127.0.0.1")
    broker = dict(line.split("=", 1) for line in kafka.properties(settings).splitlines())
    assert broker["auto.create.topics.enable"] == "false"
    assert broker["delete.topic.enable"] == "false"
    assert all(
        url.startswith(("CLIENT://127.0.0.1", "CONTROLLER://127.0.0.1")) for url in broker["listeners"].split(",")
    )
    assert broker["listener.security.protocol.map"] == "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT"
    assert broker["authorizer.class.name"].endswith("StandardAuthorizer")
    assert broker["super.users"] == "User:sijil_broker"


def test_with_tls_every_local_server_has_a_certificate_and_every_client_asks_for_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, stack_tls=1, kafka_security_protocol="SASL_PLAINTEXT")
    ca = str(tmp_path / "tls/ca.pem")
    assert (settings.kafka_security_protocol, settings.kafka_ca_file) == ("SASL_SSL", ca)
    assert (settings.cassandra_ca_file, settings.s3_ca_file) == (ca, ca)
    assert settings.s3_endpoint == f"https://127.0.0.1:{settings.stack_s3_port}"
    broker = dict(line.split("=", 1) for line in kafka.properties(settings).splitlines())
    assert broker["listener.security.protocol.map"] == "CLIENT:SASL_SSL,CONTROLLER:SASL_SSL"
    assert "PRIVATE KEY" in Path(broker["ssl.keystore.location"]).read_text("ascii")
    options = cassandra.configuration(settings)["client_encryption_options"]
    assert isinstance(options, dict)
    assert (options["enabled"], options["optional"]) == (True, False)
    assert f"-s3.cert.file={tmp_path}/tls/servers.pem" in seaweedfs.command(settings)
    assert all(not parts.external(settings, name) for name in ("kafka", "cassandra", "seaweedfs"))


def test_tls_of_the_local_stack_does_not_touch_servers_elsewhere(tmp_path: Path) -> None:
    outside = Settings(
        home=tmp_path,
        stack_tls=1,
        kafka_bootstrap="k1:9092",
        kafka_security_protocol="SASL_PLAINTEXT",
        cassandra_contact_points="10.0.0.1",
        s3_endpoint="https://s3.x",
    )
    assert (outside.kafka_security_protocol, outside.kafka_ca_file) == ("SASL_PLAINTEXT", "")
    assert (outside.cassandra_ca_file, outside.s3_ca_file) == ("", "")


def test_a_server_that_settings_place_elsewhere_is_not_started() -> None:
    names = {p.name for p in parts.PARTS}
    assert {p.name for p in parts.chosen(Settings())} == names
    outside = Settings(
        kafka_bootstrap="k1:9092", cassandra_contact_points="10.0.0.1,10.0.0.2", s3_endpoint="https://s3.x"
    )
    assert {p.name for p in parts.chosen(outside)} == names - {"kafka", "cassandra", "seaweedfs"}
    assert [p.name for p in parts.chosen(Settings(), ["api", "kafka"])] == ["kafka", "api"]
    with pytest.raises(StackError, match="there is no part 'zookeeper'"):
        parts.chosen(Settings(), ["zookeeper"])


def test_a_log_over_its_limit_is_cut_and_its_writer_goes_on(tmp_path: Path) -> None:
    path = logs.path(tmp_path, "kafka")
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        logs.rotate(tmp_path, limit=1000)
        assert path.read_bytes() == b"old\n" * 100
        logs.rotate(tmp_path, limit=100)
        writer.write(b"new\n\n")
    assert path.read_bytes() == b"new\n\n"
    assert path.with_name("kafka.log.1").read_bytes() == b"old\n" * 100
    assert logs.last_line(tmp_path, "kafka") == "new"
    assert logs.last_line(tmp_path, "nobody") == ""


def test_an_identity_is_a_pid_and_a_start(tmp_path: Path) -> None:
    me = process.identity(1)
    assert me is not None
    assert me.alive()
    assert not process.Identity(me.pid, me.ticks + 1, me.boot).alive()
    assert not process.Identity(me.pid, me.ticks, "other-boot").alive()
    process.write_pid_file(tmp_path / "x.pid")
    mine = process.read_pid_file(tmp_path / "x.pid")
    assert mine is not None
    assert mine.alive()
    (tmp_path / "y.pid").write_text("not a pid file")
    assert process.read_pid_file(tmp_path / "y.pid") is None


def test_the_state_is_read_back_as_written_and_one_home_has_one_supervisor(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    state = StackState(7, "serving", [PartState("kafka", 9092, pid=1, health="ready")])
    run.write(state)
    assert RunFolder(tmp_path).read() == state
    run.claim()
    with pytest.raises(StackError, match="is up already"):
        RunFolder(tmp_path).claim()
    run.release()
    other = RunFolder(tmp_path)
    other.claim()
    other.release()


def test_a_process_lives_as_long_as_its_last_thread_which_holds_its_ports() -> None:
    ends = "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    child = subprocess.Popen([sys.executable, "-c", f"{ends}ctypes.CDLL(None).pthread_exit(None)"])
    try:
        who = process.identity(child.pid)
        assert who is not None
        stat = Path(f"/proc/{child.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        assert who.alive()
        child.kill()
        while who.alive():
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
