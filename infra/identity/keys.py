"""The signing keys of the embedded issuer: a private JWK set in `<home>/secrets/issuer-keys.json` (mode 0600).

The first key signs, all verify. `rotate` puts a new one in front and keeps the last for tokens that are under way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from infra import clock
from infra.stack.credentials import write_private
from schemas.errors import Defect

ALGORITHM = "ES256"
KEPT = 2
_PUBLIC = ("kty", "crv", "x", "y", "kid", "alg", "use")


class IssuerKeys:
    """The file and what is in it; another process may rotate it meanwhile."""

    def __init__(self, secrets: Path) -> None:
        self._path = secrets / "issuer-keys.json"
        self._read_as = -1
        self._keys: list[dict[str, Any]] = []

    def ensure(self) -> None:
        """Make the first key where there is none."""
        if not self._path.exists():
            self._write([_made()])

    def rotate(self) -> str:
        """Sign with a new key from now on; its id."""
        new = _made()
        self._write([new, *self._current()][:KEPT])
        return str(new["kid"])

    def sign(self, claims: Mapping[str, Any], *, kind: str) -> str:
        """A JWT of the type `kind` (`at+jwt`, `JWT`)."""
        first = self._current()[0]
        key = jwt.PyJWK.from_dict(first)
        return jwt.encode(dict(claims), key.key, ALGORITHM, headers={"kid": first["kid"], "typ": kind})

    async def read(self) -> Mapping[str, Any]:
        """The public half (`infra.identity.tokens.KeySource`)."""
        return self.public()

    def public(self) -> dict[str, Any]:
        """The JWK set that everybody may see."""
        return {"keys": [{n: key[n] for n in _PUBLIC} for key in self._current()]}

    def _current(self) -> list[dict[str, Any]]:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._read_as:
                self._keys, self._read_as = json.loads(self._path.read_text(encoding="utf-8"))["keys"], changed
        except (OSError, ValueError, KeyError) as e:
            raise Defect("the embedded issuer's keys cannot be read: secrets/issuer-keys.json") from e
        return self._keys

    def _write(self, keys: list[dict[str, Any]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path, json.dumps({"keys": keys}))


def _made() -> dict[str, Any]:
    key = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    return {**key, "kid": str(clock.uuid7()), "alg": ALGORITHM, "use": "sig"}
