"""The headers of a channel as they are stored: they may hold somebody's token."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from infra.settings import Settings
from schemas.errors import Invalid

Headers = tuple[tuple[str, str], ...]


class Seal:
    """Seals and opens with SIJIL_SUBSCRIPTION_SECRET."""

    def __init__(self, settings: Settings) -> None:
        self._seal: Fernet | None = None
        if settings.subscription_secret:
            key = hashlib.sha256(b"sijil subscription" + bytes.fromhex(settings.subscription_secret)).digest()
            self._seal = Fernet(base64.urlsafe_b64encode(key))

    def sealed(self, headers: Sequence[tuple[str, str]]) -> str:
        """ "" for none. Raises Invalid where there is no key to seal them with."""
        if not headers:
            return ""
        if self._seal is None:
            raise Invalid("subscription-header", "headers need SIJIL_SUBSCRIPTION_SECRET at the api and delivery")
        return self._seal.encrypt(msgspec.json.encode(headers)).decode()

    def opened(self, sealed: str) -> Headers:
        """Raises Invalid for what was sealed with a key that is no longer ours."""
        if not sealed:
            return ()
        try:
            if self._seal is None:
                raise InvalidToken
            return msgspec.json.decode(self._seal.decrypt(sealed.encode()), type=Headers)
        except (InvalidToken, msgspec.DecodeError) as e:
            raise Invalid("headers-unreadable", "the headers were sealed with another key: send them again") from e
