"""TLS of our own doors, by BCP 195 (RFC 8996, RFC 9325): 1.2 at least, and in 1.2 ephemeral keys with AEAD alone.

That is also what PS3.15 Annex B asks for as the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (B.12).
"""

from __future__ import annotations

import ssl
from pathlib import Path

from infra.settings import SettingsError

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
