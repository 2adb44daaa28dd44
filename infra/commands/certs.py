"""`sijil certs`: a CA and certificates for trying TLS. Where there is a real CA, its certificates are used instead."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra import clock
from infra.settings import Settings
from infra.stack.credentials import write_private

CA_DAYS, DAYS = 3650, 397
Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


@click.command("certs")
@click.option("--host", "hosts", multiple=True, help="Name or address by which clients reach the doors; repeatable.")
@click.option("--client", "clients", multiple=True, help="AE title or name of a client that gets one; repeatable.")
def command(hosts: tuple[str, ...], clients: tuple[str, ...]) -> None:
    """Make a trial CA and certificates under HOME/tls, and print the settings that turn TLS on.

    Run again it keeps the CA and makes the certificates anew. For trying: the CA's key lies beside them.
    """
    folder = Settings.load("admin").home / "tls"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = authority(folder)
    names = tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", *hosts)))
    _write(folder / "server", issue(ca, "sijil", names, ExtendedKeyUsageOID.SERVER_AUTH))
    for client in clients:
        made = issue(ca, client, (), ExtendedKeyUsageOID.CLIENT_AUTH)
        _write(folder / f"client-{client}", made)
        click.echo(
            f"# {client}: {folder}/client-{client}.pem, fingerprint {made[0].fingerprint(hashes.SHA256()).hex()}"
        )
    for door in ("HTTPS", "DICOM_TLS"):
        click.echo(f"SIJIL_{door}_CERTIFICATE={folder}/server.pem")
        click.echo(f"SIJIL_{door}_KEY={folder}/server.key")
    click.echo(f"SIJIL_DICOM_TLS_CA={folder}/ca.pem")


def authority(folder: Path) -> Pair:
    """The CA of a folder, made if there is none."""
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if key.exists():
        found = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(found, ec.EllipticCurvePrivateKey)  # noqa: S101  (we wrote it)
        return x509.load_pem_x509_certificate(certificate.read_bytes()), found
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sijil trial CA")])
    builder = _builder(name, name, made, CA_DAYS).add_extension(x509.BasicConstraints(True, 0), critical=True)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    pair = builder.add_extension(usage, critical=True).sign(made, hashes.SHA256()), made
    _write(folder / "ca", pair)
    return pair


def issue(ca: Pair, name: str, hosts: tuple[str, ...], use: x509.ObjectIdentifier) -> Pair:
    """A certificate of the CA for hosts (a server) or a name (a client)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, ca[0].subject, key, DAYS)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca[1].public_key()), critical=False
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
    return builder.sign(ca[1], hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = clock.now()
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(stem: Path, pair: Pair) -> None:
    certificate, key = pair
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(Path(f"{stem}.key"), key.private_bytes(serialization.Encoding.PEM, *plain).decode())
    Path(f"{stem}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
