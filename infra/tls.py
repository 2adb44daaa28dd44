"""TLS of our own doors, by BCP 195 (RFC 8996, RFC 9325): 1.2 at least, and in 1.2 ephemeral keys with AEAD alone.

That is also what PS3.15 Annex B asks for as the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (B.12).
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from infra.settings import Settings, SettingsError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all of this kind."""


def server(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """The context of a door. With `client_ca` (PEM) every client proves itself with a certificate of that CA.

    Raises SettingsError for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key or None)
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as e:
        names = ", ".join(Path(p).name for p in (certificate, key, client_ca) if p)
        raise SettingsError(f"TLS cannot be set up with {names}: {e.strerror or type(e).__name__}") from e
    return context


@dataclass(frozen=True)
class Client:
    """How this archive calls DICOM peers that speak TLS: with its own certificate, to those of the doors' CA."""

    certificate: str
    key: str
    ca: str

    @classmethod
    def of(cls, settings: Settings) -> Client | None:
        """None where DICOM with TLS is not set up."""
        files = settings.dicom_tls_certificate, settings.dicom_tls_key, settings.dicom_tls_ca
        return cls(*files) if settings.dicom_tls_certificate else None

    def wrap(self, plain: socket.socket, host: str, certificate: str) -> ssl.SSLSocket:
        """The connection once the peer has proved itself: by its `certificate` (SHA-256, hex), or else as `host`.

        A device's certificate often names the device and no host; its own one, known beforehand, says more than a name.
        Raises OSError, and closes `plain` then.
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.check_hostname = not certificate
        try:
            context.load_cert_chain(self.certificate, self.key or None)
            proved = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        if certificate and hashlib.sha256(proved.getpeercert(binary_form=True) or b"").hexdigest() != certificate:
            proved.close()
            raise ssl.SSLCertVerificationError("another certificate than the AE table's")
        return proved
