"""A CA and certificates for trying TLS on one machine. The CA's key lies beside them: no replacement for a real one."""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra import clock
from infra.settings import Settings
from infra.stack.credentials import write_private

CA_DAYS, DAYS = 3650, 397
HERE = ("localhost", "127.0.0.1", "::1")
Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]

_making = threading.Lock()


@dataclass(frozen=True)
class Servers:
    """PEM files of the local stack's own servers."""

    ca: Path
    certificate: Path
    key: Path
    both: Path
    """Key and certificate in one file, as Java takes them."""


def for_servers(settings: Settings) -> Servers:
    """Made where they are missing."""
    folder = settings.home / "tls"
    stem = folder / "servers"
    made = Servers(folder / "ca.pem", Path(f"{stem}.pem"), Path(f"{stem}.key"), folder / "servers.both.pem")
    with _making:  # the servers are prepared side by side
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ca = authority(folder)
        if not made.both.exists():
            write(stem, issue(ca, "sijil-servers", HERE, ExtendedKeyUsageOID.SERVER_AUTH))
            write_private(made.both, made.key.read_text("ascii") + made.certificate.read_text("ascii"))
    return made


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
    write(folder / "ca", pair)
    return pair


def issue(ca: Pair, name: str, hosts: tuple[str, ...], *uses: x509.ObjectIdentifier) -> Pair:
    """A certificate of the CA for hosts (a server) or a name (a client)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, ca[0].subject, key, DAYS)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
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


def write(stem: Path, pair: Pair) -> None:
    """STEM.key, readable by the owner alone, and STEM.pem."""
    certificate, key = pair
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(Path(f"{stem}.key"), key.private_bytes(serialization.Encoding.PEM, *plain).decode())
    Path(f"{stem}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
