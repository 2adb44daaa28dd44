"""The users of the local Kafka and their grants, made where missing: run by the supervisor once the broker answers.

What was made last is remembered beside the broker's data, so that a further start asks the broker nothing. A role's
password is changed by changing it in `<home>/secrets/ROLE.env` and starting again.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from infra.kafka_grants import Grant, grants
from infra.settings import Settings
from infra.stack import credentials

ITERATIONS = 4096
"""Of SCRAM: the passwords are of 192 random bits, no dictionary finds them."""
TIMEOUT_S = 30.0
_ANYTHING: Any = None
_EVERY = AclBindingFilter(
    ResourceType.ANY, _ANYTHING, ResourcePatternType.ANY, _ANYTHING, _ANYTHING, AclOperation.ANY, AclPermissionType.ANY
)
_KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}


def connection(settings: Settings) -> dict[str, Any]:
    """The broker's own user at the local Kafka."""
    user, password = credentials.broker(settings.home)
    return {
        "bootstrap.servers": f"127.0.0.1:{settings.stack_kafka_port}",
        "security.protocol": "SASL_SSL" if settings.stack_tls else "SASL_PLAINTEXT",
        **({"ssl.ca.location": settings.kafka_ca_file} if settings.stack_tls else {}),
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
        "log_level": 4,
    }


def ensure(settings: Settings) -> bool:
    """Make them; False if they were as they should be. Raises KafkaException."""
    users = {c.kafka_username: c.kafka_password for c in credentials.ensure(settings.home).values()}
    wanted = hashlib.sha256(repr((sorted(users.items()), grants(), ITERATIONS)).encode()).hexdigest()
    made = settings.home / "data/kafka/users.sha256"
    if _known(made) == wanted:
        return False
    admin = AdminClient(connection(settings))
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
    upserts: list[Any] = [
        UserScramCredentialUpsertion(name, scram, password.encode()) for name, password in users.items()
    ]
    acls = {_acl(g) for g in grants()}
    there = set(admin.describe_acls(_EVERY, request_timeout=TIMEOUT_S).result(TIMEOUT_S))
    futures = [*admin.alter_user_scram_credentials(upserts, request_timeout=TIMEOUT_S).values()]
    if acls - there:
        futures += admin.create_acls([*(acls - there)], request_timeout=TIMEOUT_S).values()
    if there - acls:  # what a role could do once
        futures += admin.delete_acls([_exactly(a) for a in there - acls], request_timeout=TIMEOUT_S).values()
    for future in futures:
        future.result(TIMEOUT_S)
    made.write_text(wanted, encoding="ascii")
    return True


def _known(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _acl(grant: Grant) -> AclBinding:
    return AclBinding(
        _KINDS[grant.kind],
        grant.name,
        ResourcePatternType.PREFIXED if grant.prefixed else ResourcePatternType.LITERAL,
        grant.principal,
        "*",
        getattr(AclOperation, grant.operation.upper()),
        AclPermissionType.ALLOW if grant.allowed else AclPermissionType.DENY,
    )


def _exactly(acl: AclBinding) -> AclBindingFilter:
    pattern = (acl.restype, acl.name, acl.resource_pattern_type)
    return AclBindingFilter(*pattern, acl.principal, acl.host, acl.operation, acl.permission_type)


def main() -> int:
    """Exit status 0: they are there."""
    try:
        ensure(Settings.load("admin"))
    except KafkaException as error:
        print(error.args[0].str(), file=sys.stderr)  # noqa: T201  (read by the supervisor)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
