"""Passwords and keys of the local stack: made once, kept in `<home>/secrets/ROLE.env`, readable by the owner alone.

A value that is there stays until somebody asks for a new one (`renew`): whoever points a role at an external cluster
edits the file, and what it lacks is added below.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.settings import ENV_PREFIX, ROLES, Role, read_env_file
from schemas.errors import Invalid
from schemas.patient_keys import PatientSecrets

# Role → bucket setting → SeaweedFS actions. `Write` needs `Read` beside it: a HEAD before and after each PUT.
S3_ACTIONS: Mapping[Role, Mapping[str, tuple[str, ...]]] = {
    "gateway": {
        "bucket_packs": ("Read", "Write"),
        "bucket_archive": ("Read",),
        "bucket_documents": ("Read", "Write"),
        "bucket_anchors": ("Read", "Write", "List"),
    },
    "api": {
        "bucket_packs": ("Read", "Write"),
        "bucket_archive": ("Read",),
        "bucket_documents": ("Read", "Write", "List"),
        "bucket_anchors": ("Read", "Write", "List"),
    },
    "hl7": {
        "bucket_documents": ("Read", "Write", "List"),
        "bucket_anchors": ("Read", "Write", "List"),
    },
    "worker": {
        "bucket_packs": ("Read",),
        "bucket_archive": ("Read",),
        "bucket_documents": ("Read", "Write"),
        "bucket_anchors": ("Read", "Write", "List"),
    },
    "archiver": {
        "bucket_packs": ("Read",),
        "bucket_archive": ("Read", "Write", "List", "PutObjectRetention", "GetObjectRetention"),
        "bucket_documents": ("Read", "Write"),
        "bucket_anchors": ("Read", "Write", "List"),
    },
    "delivery": {
        "bucket_documents": ("Read",),
        "bucket_anchors": ("Read", "Write", "List"),
    },
    "operator": {
        bucket: ("Read", "List") for bucket in ("bucket_packs", "bucket_archive", "bucket_documents", "bucket_anchors")
    },
    "analytics": {},  # reads the log alone
}

PATIENT_SECRET = "patient_secret"  # noqa: S105 (its name)
# Secrets of the archive that several roles share, and those that one role keeps for itself.
SHARED: Mapping[str, tuple[Role, ...]] = {
    PATIENT_SECRET: ("hl7", "worker"),  # the worker's last: it is the one that is read where it is retired
    "search_secret": ("api", "gateway"),
    "session_secret": ("api",),
    "subscription_secret": ("api", "delivery"),
    "dead_letter_key": ("worker", "archiver", "operator"),
}


@dataclass(frozen=True)
class Credentials:
    """What one role proves itself with to Kafka, Cassandra and S3."""

    role: Role
    kafka_username: str
    kafka_password: str
    cassandra_username: str
    cassandra_password: str
    s3_access_key: str
    s3_secret_key: str


def ensure(home: Path) -> dict[Role, Credentials]:
    """Every role's credentials, made where they are missing. Folder mode 0700, files 0600."""
    folder = home / "secrets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = {role: read_env_file(folder / f"{role}.env") for role in ROLES}
    common = {
        name: next((v for role in roles if (v := known[role].get(_env(name)))), secrets.token_hex(32))
        for name, roles in SHARED.items()
    }
    made: dict[Role, Credentials] = {}
    for role in ROLES:
        wanted = {
            _env("kafka_security_protocol"): "SASL_PLAINTEXT",
            _env("kafka_sasl_mechanism"): "SCRAM-SHA-512",
            _env("kafka_username"): f"sijil_{role}",
            _env("kafka_password"): secrets.token_urlsafe(24),
            _env("cassandra_username"): f"sijil_{role}",
            _env("cassandra_password"): secrets.token_urlsafe(24),
            _env("s3_access_key"): f"sijil-{role}",
            _env("s3_secret_key"): secrets.token_urlsafe(30),
            **{_env(name): common[name] for name, roles in SHARED.items() if role in roles},
        }
        values = {**wanted, **known[role]}
        if values != known[role]:
            write_private(folder / f"{role}.env", "".join(f"{k}={v}\n" for k, v in values.items()))
        made[role] = Credentials(
            role,
            values[_env("kafka_username")],
            values[_env("kafka_password")],
            values[_env("cassandra_username")],
            values[_env("cassandra_password")],
            values[_env("s3_access_key")],
            values[_env("s3_secret_key")],
        )
    return made


def renew(home: Path, name: str) -> tuple[Role, ...]:
    """A new value of a shared secret for every role that has it; which these are. The old one is gone.

    Raises Invalid where a role has it from elsewhere: it is made there.
    """
    shared(home, name)
    return put(home, name, secrets.token_hex(32))


def replace_patient_secret(home: Path) -> tuple[Role, ...]:
    """A new patient secret in front of the one that is there; whose. Raises Invalid: see `shared` and `replaced`."""
    known = {PatientSecrets.parse(value) for value in shared(home, PATIENT_SECRET)}
    begun = next((s for s in known if s.previous is not None and len(known) > 1), None)  # by one who was killed
    new = begun or known.pop().replaced(secrets.token_bytes(32))
    return put(home, PATIENT_SECRET, str(new))


def shared(home: Path, name: str) -> tuple[str, ...]:
    """A shared secret as each role has it. Raises Invalid where one has it from elsewhere."""
    files = {role: home / "secrets" / f"{role}.env" for role in SHARED[name]}
    values = {role: read_env_file(file).get(_env(name), "") for role, file in files.items()}
    missing = [str(files[role]) for role, value in values.items() if not value]
    if missing:
        raise Invalid("secret-elsewhere", f"{_env(name)} is not in {' and '.join(missing)}: replace it where it is set")
    return tuple(values.values())


def put(home: Path, name: str, value: str) -> tuple[Role, ...]:
    """Give a shared secret to every role that has it, one by one; which these are."""
    for role in SHARED[name]:
        file = home / "secrets" / f"{role}.env"
        values = {**read_env_file(file), _env(name): value}
        write_private(file, "".join(f"{k}={v}\n" for k, v in values.items()))
    return SHARED[name]


def broker(home: Path) -> tuple[str, str]:
    """(user, password) of the local broker itself, the one that no ACL binds. Nobody else's process reads it."""
    path = home / "secrets" / "kafka.env"
    known = read_env_file(path)
    if "BROKER_PASSWORD" not in known:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = {"BROKER_PASSWORD": secrets.token_urlsafe(24)}
        write_private(path, "".join(f"{k}={v}\n" for k, v in known.items()))
    return "sijil_broker", known["BROKER_PASSWORD"]


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file of mode 0600 that is never seen half written or by others."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _env(name: str) -> str:
    return ENV_PREFIX + name.upper()
