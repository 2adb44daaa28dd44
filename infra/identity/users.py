"""Who may log in at the embedded issuer: `<home>/secrets/users.json` (mode 0600), with a user of every role.

Passwords are made at the first start and written once to `<home>/secrets/users.txt` for whoever owns the installation;
users.json keeps their scrypt digests (RFC 7914). An installation with an OIDC provider of its own has neither file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from infra.stack.credentials import write_private
from schemas.errors import Defect, Invalid
from schemas.identity import derived_id
from schemas.roles import Role

COST = 1 << 14
"""scrypt's N, with r 8 and p 1: 16 MiB and some 40 ms a try."""
SERVICES = {"gateway": Role.GATEWAY, "ehr": Role.EHR, "analytics": Role.ANALYST}
"""client_id → role, by client credentials."""


@dataclass(frozen=True)
class User:
    """Somebody, or a service (`service`: by client credentials alone)."""

    username: str
    role: str
    digest: str
    sites: list[str] = field(default_factory=list)
    person_id: str = ""
    patient_key: str = ""
    service: bool = False


class Users:
    """The file; read again when it changed."""

    def __init__(self, folder: Path) -> None:
        self._path, self._told = folder / "users.json", folder / "users.txt"
        self._read_as = -1
        self._users: dict[str, User] = {}

    def ensure(self, site: str) -> None:
        """A user of every role but `local`, where there is no file yet. `site`: of those who belong to one."""
        if self._path.exists():
            return
        made: list[User] = []
        told: list[str] = []
        for name, role, service in [
            *((str(r), r, False) for r in Role if r not in (Role.LOCAL, Role.GATEWAY, Role.EHR)),
            *((name, role, True) for name, role in SERVICES.items()),
        ]:
            password = secrets.token_urlsafe(12)
            made.append(_user(name, role, password, [site] if role in _OF_A_SITE else [], service=service))
            told.append(f"{name}\t{password}\t{role}\n")
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._told, "# user\tpassword\trole\n" + "".join(told))
        self._write(made)

    def put(self, username: str, role: Role, *, sites: list[str], patient_key: str = "", person_id: str = "") -> str:
        """Add somebody, or change what they are; their new password. Raises Invalid."""
        if not (username.isascii() and username.replace("-", "").replace(".", "").isalnum() and len(username) <= 64):
            raise Invalid("username", "a user name is letters, digits, dots and hyphens, at most 64")
        password = secrets.token_urlsafe(12)
        user = _user(username, role, password, sites, service=username in SERVICES)
        user = replace(user, patient_key=patient_key, person_id=person_id or user.person_id)
        self._write([*(u for n, u in self._current().items() if n != username), user])
        told = self._told.read_text(encoding="utf-8") if self._told.exists() else ""
        kept = [line for line in told.splitlines(keepends=True) if not line.startswith(f"{username}\t")]
        write_private(self._told, "".join([*kept, f"{username}\t{password}\t{role}\n"]))
        return password

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self._path.exists()

    def all(self) -> list[User]:
        """Everybody, by name."""
        return sorted(self._current().values(), key=lambda u: u.username)

    def get(self, username: str) -> User | None:
        """Somebody by their name."""
        return self._current().get(username)

    def proved(self, username: str, password: str) -> User | None:
        """Who this is, if the password is theirs. Takes as long for a name that nobody has."""
        user = self.get(username)
        right = _matches(password, user.digest if user else _nobody())
        return user if right and user is not None else None

    def _current(self) -> Mapping[str, User]:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._read_as:
                listed = json.loads(self._path.read_text(encoding="utf-8"))["users"]
                self._users, self._read_as = {u["username"]: User(**u) for u in listed}, changed
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Defect("the embedded issuer's users cannot be read: secrets/users.json") from e
        return self._users

    def _write(self, users: list[User]) -> None:
        write_private(self._path, json.dumps({"users": [asdict(u) for u in users]}, indent=1))


_OF_A_SITE = frozenset({Role.TECHNICIAN, Role.CLERK, Role.RADIOLOGIST, Role.RESIDENT, Role.DOCTOR, Role.GATEWAY})


def _user(name: str, role: Role, password: str, sites: list[str], *, service: bool) -> User:
    person = "" if service else derived_id("person", "embedded", name)
    return User(name, str(role), _digest(password, secrets.token_bytes(16)), sites, person, service=service)


def _digest(password: str, salt: bytes) -> str:
    found = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=8, p=1)
    return f"{base64.b64encode(salt).decode()}${base64.b64encode(found).decode()}"


def _matches(password: str, digest: str) -> bool:
    salt = base64.b64decode(digest.partition("$")[0])
    return hmac.compare_digest(_digest(password, salt), digest)


@cache
def _nobody() -> str:
    return _digest("", bytes(16))
