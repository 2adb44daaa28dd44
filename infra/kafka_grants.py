"""Who may do what on the log, made into ACLs: a role writes its topics, reads what it needs, and none deletes.

On the local stack its own broker user applies them (`infra.stack.kafka_users`). Elsewhere whoever runs the cluster
does: `sijil kafka-grants` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from infra.settings import Role
from schemas.topics import PREFIX, TOPICS

Kind = Literal["topic", "group", "cluster"]

EVERYTHING = tuple(t.name.removeprefix(PREFIX) for t in TOPICS)
# Topics a role's process publishes to, without `sijil.`
WRITES: Mapping[Role, tuple[str, ...]] = {
    "gateway": ("study.arrivals", "orders", "accesses"),
    "api": (
        "study.arrivals",
        "study.corrections",
        "reports",
        "accesses",
        "people",
        "patients",
        "orders",
        "reading",
        "sites",
    ),
    "hl7": ("reports", "orders", "patients", "study.arrivals"),
    "worker": ("study.arrivals", "study.lifecycle", "study.corrections", "patients", "reports", "dead-letters"),
    "archiver": ("study.lifecycle", "archive", "reports", "dead-letters"),
    "delivery": ("reports", "study.lifecycle"),
    "admin": EVERYTHING,  # `sijil dead-letters retry` puts a record back where it came from, byte for byte
}
NOT_FOR_ANALYSTS = frozenset({"accesses", "people", "sites", "dead-letters"})
READS: Mapping[Role, tuple[str, ...]] = {
    "api": EVERYTHING,
    "worker": EVERYTHING,
    "archiver": EVERYTHING,
    "delivery": EVERYTHING,
    "operator": EVERYTHING,
    "analytics": tuple(name for name in EVERYTHING if name not in NOT_FOR_ANALYSTS),
}
READ_GROUP = "sijil-read"
"""Of reads by offset, which join no group: the client names one all the same."""
GROUPS: Mapping[Role, str] = {"worker": "sijil-worker", "archiver": "sijil-archiver", "analytics": "sijil-analytics"}
"""Prefix of the consumer groups a role commits to."""


@dataclass(frozen=True, order=True)
class Grant:
    """One ACL. `role` empty: everybody."""

    role: str
    allowed: bool
    operation: str
    kind: Kind
    name: str
    prefixed: bool = False

    @property
    def principal(self) -> str:
        """As Kafka names users."""
        return f"User:sijil_{self.role}" if self.role else "User:*"


def grants() -> tuple[Grant, ...]:
    """All of them."""
    found = {Grant("", False, "delete", "topic", "*"), Grant("", False, "delete", "group", "*")}
    for role, topics in WRITES.items():
        found |= {Grant(role, True, "write", "topic", PREFIX + t) for t in topics}
        found.add(Grant(role, True, "describe", "topic", PREFIX, prefixed=True))
    for role, topics in READS.items():
        found |= {Grant(role, True, "read", "topic", PREFIX + t) for t in topics}
        found.add(Grant(role, True, "read", "group", READ_GROUP))
    for role, group in GROUPS.items():
        found.add(Grant(role, True, "read", "group", group, prefixed=True))
    for operation in ("create", "describe", "describe_configs"):
        found.add(Grant("admin", True, operation, "topic", PREFIX, prefixed=True))
    found.add(Grant("admin", True, "describe", "cluster", "kafka-cluster"))
    return tuple(sorted(found))
