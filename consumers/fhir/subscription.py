"""Subscriptions in FHIR R4 with topics, as the Subscriptions R5 Backport IG has them (STU 1.1,
hl7.org/fhir/uv/subscriptions-backport). Pure.

| element | what it holds |
|---|---|
| `criteria` | the canonical of a topic: TOPICS |
| `channel.type` | `rest-hook` |
| `channel.payload` | `application/fhir+json`, with the extension that says `id-only` |
| `channel.header` | what is sent along, `Authorization: …` for example; shown as `Authorization: ***` |
| extensions of `channel` | heartbeat period and timeout, seconds; a bundle holds one event: any max-count is kept |

Filters are refused and not ignored: whoever filters must not be told of more than they asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from consumers.fhir.codes import MEDIA_TYPE, Resource, compact
from schemas.errors import Invalid

IG: Final = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
PROFILE: Final = IG + "backport-subscription"
CONTENT: Final = IG + "backport-payload-content"
HEARTBEAT: Final = IG + "backport-heartbeat-period"
TIMEOUT: Final = IG + "backport-timeout"
TOPIC_EXTENSION: Final = IG + "capabilitystatement-subscriptiontopic-canonical"
STATUS_OPERATION: Final = (
    "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-status"
)

REPORT_ISSUED: Final = "urn:sijil:topics/report-issued"
STUDY_COMPLETE: Final = "urn:sijil:topics/study-complete"
TOPICS: Final[Mapping[str, str]] = {
    REPORT_ISSUED: "a version of a report was issued, whatever its status; the focus is the DiagnosticReport",
    STUDY_COMPLETE: "nothing more is expected of a study, once or again; the focus is the ImagingStudy",
}
HEARTBEAT_LEAST_S: Final = 10
TIMEOUT_S: Final = 20
TIMEOUT_MOST_S: Final = 30
SECONDS_MOST: Final = 86_400
HEADERS_MAX: Final = 8
HEADER_MAX: Final = 4096
TEXT_MAX: Final = 1000
URL_MAX: Final = 2000
HIDDEN: Final = "***"
"""Shown for the value of a header; sent back with a change, it leaves that header as it is."""
OURS: Final = frozenset(
    "connection content-encoding content-length content-type cookie expect host idempotency-key keep-alive "
    "proxy-authorization proxy-connection te trailer transfer-encoding upgrade x-request-id".split()
)
"""Headers that a channel may not set."""
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")
_VALUE: Final = re.compile(r"[\x20-\x7e]*\Z")


@dataclass(frozen=True)
class Asked:
    """What a subscriber asks for."""

    topic: str
    endpoint: str
    on: bool
    """`requested` or `active`; else `off`."""
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    heartbeat_s: int = 0
    """0: none."""
    timeout_s: int = TIMEOUT_S
    ends: datetime | None = None


def read(body: bytes) -> Asked:
    """The subscription of a request. Raises Invalid, saying what to do."""
    try:
        sent = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("subscription-json", "the body is a FHIR R4 Subscription in JSON") from e
    if sent.get("resourceType") != "Subscription" or sent.get("modifierExtension"):
        raise Invalid("subscription-json", "the body is a FHIR R4 Subscription without modifier extensions")
    channel = _mapping(sent.get("channel"))
    topic = _text(sent, "criteria")
    if topic not in TOPICS:
        raise Invalid("subscription-topic", f"criteria is the canonical of a topic: {' or '.join(TOPICS)}")
    if _mapping(sent.get("_criteria")).get("extension"):
        raise Invalid("subscription-filter", "topics have no filters here: leave the extensions of criteria out")
    if _text(sent, "status") not in ("requested", "active", "off"):
        raise Invalid("subscription-status", "status is requested, or off")
    if _text(channel, "type") != "rest-hook":
        raise Invalid("subscription-channel", "channel.type is rest-hook")
    if _text(channel, "payload") not in (MEDIA_TYPE, "application/json"):
        raise Invalid("subscription-payload", f"channel.payload is {MEDIA_TYPE}")
    content = [e.get("valueCode") for e in _extensions(_mapping(channel.get("_payload")), CONTENT)]
    if content != ["id-only"]:
        raise Invalid("subscription-content", f"channel.payload has the extension {CONTENT} with valueCode id-only")
    return Asked(
        topic,
        _text(channel, "endpoint", URL_MAX),
        _text(sent, "status") != "off",
        _text(sent, "reason"),
        _headers(channel.get("header")),
        _seconds(channel, HEARTBEAT, "valueUnsignedInt", 0, HEARTBEAT_LEAST_S, SECONDS_MOST),
        _seconds(channel, TIMEOUT, "valueUnsignedInt", TIMEOUT_S, 1, TIMEOUT_MOST_S),
        _instant(sent.get("end")),
    )


def resource(asked: Asked, *, id: str, version: int, changed: str, status: str, error: str = "") -> Resource:
    """A subscription as it is. `changed`: RFC 3339; `error`: a code for what is wrong now."""
    seconds = [(HEARTBEAT, asked.heartbeat_s), (TIMEOUT, asked.timeout_s)]
    channel = {
        "extension": [{"url": url, "valueUnsignedInt": s} for url, s in seconds if s],
        "type": "rest-hook",
        "endpoint": asked.endpoint,
        "payload": MEDIA_TYPE,
        "_payload": {"extension": [{"url": CONTENT, "valueCode": "id-only"}]},
        "header": [f"{name}: {HIDDEN}" for name, _ in asked.headers],
    }
    found: Resource = {
        "resourceType": "Subscription",
        "id": id,
        "meta": {"versionId": str(version), "lastUpdated": changed, "profile": [PROFILE]},
        "status": status,
        "end": asked.ends.isoformat() if asked.ends else "",
        "reason": asked.reason,
        "criteria": asked.topic,
        "error": error,
        "channel": compact(channel),
    }
    return compact(found)


def kept(headers: Sequence[tuple[str, str]], before: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Headers of a change, those shown as HIDDEN as they were before. Raises Invalid."""
    known = {name.lower(): value for name, value in before}
    if any(value == HIDDEN and name.lower() not in known for name, value in headers):
        raise Invalid("subscription-header", f"a header with the value {HIDDEN} is one that is there already")
    return tuple((name, known[name.lower()] if value == HIDDEN else value) for name, value in headers)


def _headers(sent: Any) -> tuple[tuple[str, str], ...]:
    if sent is None:
        return ()
    lines = sent if isinstance(sent, list) and all(isinstance(line, str) for line in sent) else [""]
    found = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    good = len(found) <= HEADERS_MAX and all(_NAME.match(n) and _VALUE.match(v) and v for n, v in found)
    if not good or any(len(v) > HEADER_MAX for _, v in found) or len({n.lower() for n, _ in found}) < len(found):
        raise Invalid("subscription-header", f"channel.header is up to {HEADERS_MAX} lines `Name: value` in ASCII")
    if taken := sorted(n.lower() for n, _ in found if n.lower() in OURS):
        raise Invalid("subscription-header", f"the archive sets these headers itself: {', '.join(taken)}")
    return tuple(found)


def _seconds(channel: Mapping[str, Any], url: str, name: str, default: int, least: int, most: int) -> int:
    found = [e.get(name) for e in _extensions(channel, url)]
    if not found:
        return default
    value = found[0]
    if len(found) > 1 or not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid("subscription-seconds", f"{url} has one {name} of {least} to {most} seconds")
    return value


def _instant(sent: Any) -> datetime | None:
    if sent is None:
        return None
    try:
        moment = datetime.fromisoformat(sent)
    except (TypeError, ValueError) as e:
        raise Invalid("subscription-end", "end is an instant, 2027-01-31T00:00:00Z for example") from e
    if moment.tzinfo is None:
        raise Invalid("subscription-end", "end is an instant with a time zone, 2027-01-31T00:00:00Z for example")
    return moment


def _text(of: Mapping[str, Any], name: str, most: int = TEXT_MAX) -> str:
    value = of.get(name)
    if not isinstance(value, str) or not value or len(value) > most:
        raise Invalid("subscription-element", f"{name} is needed: a text of at most {most} characters")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _extensions(of: Mapping[str, Any], url: str) -> list[Mapping[str, Any]]:
    listed = of.get("extension")
    return [e for e in listed if _mapping(e).get("url") == url] if isinstance(listed, list) else []
