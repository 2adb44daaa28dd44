"""The topics: one table. Everything else (Kafka configs, AsyncAPI, agents, verify-log) is made from it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import EVENTS, Event

PREFIX = "sijil."


@dataclass(frozen=True)
class Topic:
    """A topic: kept forever, never compacted, order and time given by the broker (LogAppendTime)."""

    name: str
    """Full name, `sijil.` in front."""
    key: str
    """What the key is, in words."""
    about: str

    @property
    def events(self) -> tuple[type[Event], ...]:
        """The event types this topic carries now."""
        return tuple(e for e in EVENTS if self.name == PREFIX + e.TOPIC)


def _t(name: str, key: str, about: str) -> Topic:
    return Topic(PREFIX + name, key, about)


TOPICS: tuple[Topic, ...] = (
    _t("study.arrivals", "StudyInstanceUID", "Packs stored and instances rejected at the doors."),
    _t("study.lifecycle", "StudyInstanceUID", "Studies completed and reopened; conflicts and duplicates found."),
    _t("study.corrections", "StudyInstanceUID", "What people corrected, reassigned, rejected or restored."),
    _t("orders", "order id", "Orders and performed procedure steps."),
    _t("people", "person id", "Staff, their roles and sites."),
    _t("reports", "report id", "Versions of reports, their critical results and their delivery."),
    _t("reading", "StudyInstanceUID", "Reading requests, assignments and second opinions."),
    _t("accesses", "StudyInstanceUID, or search id", "Who looked at what, when and why."),
    _t("patients", "patient key", "Patients seen, linked and unlinked."),
    _t("sites", "site id, AE title or address", "Sites, devices and vans; where notifications may go."),
    _t("archive", "pack id", "Moves of packs between tiers and their fixity."),
    _t("dead-letters", "origin topic/partition/offset", "Records that could not be processed."),
)
BY_NAME: dict[str, Topic] = {t.name: t for t in TOPICS}


def topic_of(event: Event | type[Event]) -> str:
    """Full name of the topic that carries an event."""
    return PREFIX + event.TOPIC


TOPIC_CONFIGS: dict[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "compression.type": "producer",
    "max.message.bytes": "1048576",
}
"""Configs of every topic. `flush.messages` and `min.insync.replicas` depend on the cluster: settings."""
