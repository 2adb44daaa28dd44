"""Short secrets that people type (the PIN of a slip, a code sent to a phone), kept as slow salted hashes. Pure.

Six digits are a million guesses: what keeps them is that few may be tried (`infra.identity.invitations`), and, for
whoever has the hash, that each costs scrypt (RFC 7914) 16 MiB and tens of milliseconds. Call it in a thread.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final

DIGITS: Final = 6
SALT_BYTES: Final = 16
_N, _R, _P = 1 << 14, 8, 1
_ARABIC: Final = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "01234567890123456789")


def normal(typed: str) -> str:
    """As it is compared: Arabic and Persian digits are digits, blanks and hyphens are not typed."""
    return "".join(c for c in typed.translate(_ARABIC) if c not in " -\u200e\u200f\u00a0")


def hashed(pin: str, salt: bytes) -> str:
    """`scrypt$<salt>$<hash>`; the same for every way of typing it."""
    return f"scrypt${b64encode(salt).decode()}${b64encode(_scrypt(pin, salt)).decode()}"


def matches(typed: str, kept: str) -> bool:
    """Whether it is the one; False too for what is no such hash."""
    kind, _, rest = kept.partition("$")
    salt, _, digest = rest.partition("$")
    if kind != "scrypt" or not salt:
        return False
    try:
        return hmac.compare_digest(_scrypt(typed, b64decode(salt)), b64decode(digest))
    except ValueError:
        return False


def _scrypt(pin: str, salt: bytes) -> bytes:
    return hashlib.scrypt(normal(pin).encode(), salt=salt, n=_N, r=_R, p=_P, dklen=32)
