"""TLS at the doors with other people's clients: curl, DCMTK, pynetdicom. Certificates are those of `sijil certs`."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pynetdicom import AE

from infra import tls
from infra.ae_table import Ae
from infra.commands import certs
from infra.dicom_scu import Outgoing, Proposed, Refused
from infra.http_door import HttpDoor, TlsServer, compose, listen, server_config
from infra.settings import Settings, SettingsError
from infra.tls import Client
from tests.archive import dcmtk
from tests.stack.gateway_doors import Doors, open_doors
from tests.stack.raw_scu import associate_request
from tests.unit.infra.test_http_door import door as http_door
from tests.unit.producers.samples import file

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sijil certs` makes."""
    home = tmp_path_factory.mktemp("certs")
    done = CliRunner().invoke(certs.command, ["--client", "CT1", "--client", "CT2"], env={"SIJIL_HOME": str(home)})
    assert done.exit_code == 0, done.output
    names = re.findall(r"^(SIJIL_\w+)=", done.output, re.M)
    assert all(hasattr(Settings, n.removeprefix("SIJIL_").lower()) for n in names)
    assert oct((home / "tls/ca.key").stat().st_mode)[-3:] == "600"
    ca = (home / "tls/ca.pem").read_bytes()
    CliRunner().invoke(certs.command, ["--client", "CT1"], env={"SIJIL_HOME": str(home)})
    assert (home / "tls/ca.pem").read_bytes() == ca, "a second run keeps the CA"
    other = tmp_path_factory.mktemp("others")
    CliRunner().invoke(certs.command, ["--client", "CT1"], env={"SIJIL_HOME": str(other)})
    (other / "tls").rename(home / "tls" / "stranger")
    return home / "tls"


def fingerprint(path: Path) -> str:
    return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()).hex()


@pytest.fixture(scope="module")
def doors(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    table = [
        Ae("CT1", "127.0.0.1", 0, certificate=fingerprint(folder / "client-CT1.pem")),
        Ae("CT2", "127.0.0.1", 0),
    ]
    own: dict[str, Any] = {
        "dicom_tls_port": 0,
        "dicom_tls_certificate": str(folder / "server.pem"),
        "dicom_tls_key": str(folder / "server.key"),
        "dicom_tls_ca": str(folder / "ca.pem"),
    }
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("tls-doors")
        with open_doors(home, patch, table, **own) as found:
            yield found


def context(folder: Path, client: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if client:
        made.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    return made


@pytest.mark.client("dcmtk storescu", feature="TLS")
def test_storescu_with_a_certificate_stores(doors: Doors, folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.dcm" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(file(f"1.5.{n + 1}", pixels=bytes(400_000)))
    command = [dcmtk("storescu"), "+tls", str(folder / "client-CT2.key"), str(folder / "client-CT2.pem")]
    command += [
        "+cf",
        str(folder / "ca.pem"),
        "-aet",
        "CT2",
        "-aec",
        "SIJIL",
        "localhost",
        str(doors.listener.tls_port),
    ]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    doors.until(lambda: {"1.5.1", "1.5.2", "1.5.3"} <= doors.files().keys())
    assert doors.files()["1.5.1"].endswith(bytes(1000))


@pytest.mark.parametrize(
    ("title", "client", "expected"),
    [
        ("CT1", "client-CT1", "established"),
        ("CT2", "client-CT2", "established"),
        ("CT2", "client-CT1", "established"),  # its row names no certificate: any of the CA
        ("CT1", "client-CT2", "rejected"),  # another's certificate
        ("CT9", "client-CT1", "rejected"),
    ],
)
def test_title_and_certificate_together(doors: Doors, folder: Path, title: str, client: str, expected: str) -> None:
    ae = AE(title)
    ae.add_requested_context(VERIFICATION)
    ae.acse_timeout = ae.network_timeout = 10
    assoc = ae.associate(
        "127.0.0.1", doors.listener.tls_port, ae_title="SIJIL", tls_args=(context(folder, client), "localhost")
    )
    try:
        assert (assoc.is_established, assoc.is_rejected) == (expected == "established", expected == "rejected")
        if assoc.is_established:
            assert assoc.send_c_echo().Status == 0
    finally:
        assoc.release()


@pytest.mark.parametrize("client", ["", "stranger/client-CT1"])
def test_without_a_certificate_of_the_ca_nothing_is_answered(doors: Doors, folder: Path, client: str) -> None:
    connection = socket.create_connection(("127.0.0.1", doors.listener.tls_port), 10)
    with context(folder, client).wrap_socket(connection, server_hostname="localhost") as s:
        with suppress(OSError):
            s.sendall(associate_request("SIJIL"))
        with pytest.raises(OSError, match=r"alert|reset"):
            s.recv(10)


def test_without_tls_a_title_with_a_certificate_is_not_believed(doors: Doors) -> None:
    for title, accepted in (("CT1", False), ("CT2", True)):
        ae = AE(title)
        ae.add_requested_context(VERIFICATION)
        assoc = ae.associate("127.0.0.1", doors.dicom_port, ae_title="SIJIL")
        assert assoc.is_established is accepted
        assoc.release()


def test_handshakes_that_do_not_end_keep_nobody_out(doors: Doors, folder: Path) -> None:
    held = [socket.create_connection(("127.0.0.1", doors.listener.tls_port)) for _ in range(20)]
    try:
        test_title_and_certificate_together(doors, folder, "CT1", "client-CT1", "established")
    finally:
        for s in held:
            s.close()


@pytest.mark.parametrize("old", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_what_bcp_195_forbids_is_refused(doors: Doors, folder: Path, old: ssl.TLSVersion) -> None:
    weak = context(folder, "client-CT1")
    with pytest.warns(DeprecationWarning, match="TLS"):
        weak.minimum_version = weak.maximum_version = old
    weak.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", doors.listener.tls_port), 10) as s,
        pytest.raises(OSError),  # noqa: PT011 (an alert, or the end of the connection)
    ):
        weak.wrap_socket(s, server_hostname="localhost")
    modern = tls.server(str(folder / "server.pem"), str(folder / "server.key"))
    assert all(re.search("GCM|CHACHA20", c["name"]) and c["kea"] != "kx-rsa" for c in modern.get_ciphers())


def test_files_that_cannot_be_used_are_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.pem"):
        tls.server(str(folder / "nowhere.pem"), "")
    with pytest.raises(SettingsError, match=r"server\.pem, client-CT1\.key"):
        tls.server(str(folder / "server.pem"), str(folder / "client-CT1.key"))


@pytest.mark.client("curl", feature="HTTPS")
def test_curl_by_https(folder: Path) -> None:
    given: HttpDoor = http_door()
    plain, proved = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    port = proved.getsockname()[1]
    settings = Settings(https_port=port)
    context = tls.server(str(folder / "server.pem"), str(folder / "server.key"))
    server = TlsServer(server_config(compose(given, []), settings), [proved], context)
    thread = threading.Thread(target=server.run, args=([plain],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        asked = ["curl", "-sS", "-i", "--max-time", "20", "--cacert", str(folder / "ca.pem")]
        done = subprocess.run(
            [*asked, f"https://localhost:{port}/health/live"], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        assert '{"live":true}' in done.stdout
        assert "strict-transport-security: max-age=31536000" in done.stdout.lower()
        assert subprocess.run([*asked, "--tls-max", "1.1", f"https://localhost:{port}/"], check=False).returncode != 0
        unproved = ["curl", "-sS", "--max-time", "20", f"https://localhost:{port}/"]
        assert subprocess.run(unproved, capture_output=True, check=False).returncode == 60
    finally:
        server.should_exit = True
        thread.join(20)
        plain.close()
        proved.close()


@pytest.fixture(scope="module")
def device(folder: Path) -> Iterator[tuple[str, int]]:
    """pynetdicom as a device that speaks TLS, with the certificate of CT1, which names no host."""
    ae = AE("CT1")
    ae.add_supported_context(VERIFICATION)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "client-CT1.pem", folder / "client-CT1.key")
    made.load_verify_locations(folder / "ca.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=made)
    try:
        yield server.server_address[:2]
    finally:
        server.shutdown()


def echo(peer: Ae, tls: Client | None) -> int:
    with Outgoing(peer, "SIJIL", tls=tls) as association:
        association.associate([Proposed(VERIFICATION, ("1.2.840.10008.1.2",))])
        return association.echo()


def test_the_archive_calls_a_device_by_tls(doors: Doors, device: tuple[str, int], folder: Path) -> None:
    own = Client.of(doors.settings)
    known, other = fingerprint(folder / "client-CT1.pem"), fingerprint(folder / "client-CT2.pem")
    assert echo(Ae("CT1", *device, certificate=known, tls=True), own) == 0
    with pytest.raises(Refused, match="SSLCertVerificationError"):
        echo(Ae("CT1", *device, certificate=other, tls=True), own)
    with pytest.raises(Refused, match="SSLCertVerificationError"):  # it does not prove that it is that host
        echo(Ae("CT1", *device, tls=True), own)
    with pytest.raises(Refused, match="not set up here"):
        echo(Ae("CT1", *device, tls=True), None)
    with pytest.raises(Refused, match="no answer to the association"):
        echo(Ae("CT1", *device), own)
