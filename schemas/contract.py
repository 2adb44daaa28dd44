"""The published contract, made from the code: JSON Schemas (2020-12), the AsyncAPI 3 document, and what may change.

A published version never changes incompatibly. The rule is narrow so that it is easy to keep: between two shapes of one
version only optional fields may be added. Everything else (a field gone or required, a type, bound or pattern changed)
breaks a reader or a writer somewhere in two hundred hospitals, and is a new version with an upcaster instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.events import EVENTS, Event
from schemas.topics import TOPIC_CONFIGS, TOPICS, topic_of

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ANNOTATIONS = ("title", "description", "default", "$schema", "$id", "examples")


def json_schema(event: type[Event]) -> Schema:
    """The payload's JSON Schema, self-contained."""
    schema = msgspec.json.schema(event)
    name = schema["$ref"].rpartition("/")[2]
    definitions = schema["$defs"]
    body = _inline(definitions.pop(name), definitions)
    body.pop("title", None)
    body["description"] = inspect.cleandoc(event.__doc__ or "")
    return {"$schema": DIALECT, "$id": f"urn:sijil:event:{event.TYPE}", "title": event.TYPE, **body}


def _inline(node: Any, definitions: Mapping[str, Any]) -> Any:
    """References replaced by what they name: a schema inside another document must not point outside itself."""
    if isinstance(node, dict):
        if "$ref" in node:
            return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {k: _inline(v, definitions) for k, v in node.items()}
    return [_inline(v, definitions) for v in node] if isinstance(node, list) else node


def json_schemas() -> dict[str, Schema]:
    """File name → schema, for every event type."""
    return {f"{e.TYPE}.schema.json": json_schema(e) for e in EVENTS}


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Why `new` may not replace `old` under the same version; empty when it may."""
    return _compare("$", _bare(old), _bare(new))


def _bare(node: Any) -> Any:
    """The schema without what only explains it."""
    if isinstance(node, dict):
        # `properties` holds names of fields, one of which may be called `title`.
        return {
            k: {n: _bare(v) for n, v in node[k].items()} if k == "properties" else _bare(node[k])
            for k in node
            if k not in _ANNOTATIONS
        }
    if isinstance(node, list):
        return [_bare(v) for v in node]
    return node


def _compare(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(before.keys() - after.keys()):
        found.append(f"{path}.{name}: field is gone")
    for name in sorted(set(new.get("required", ())) ^ set(old.get("required", ()))):
        now = "required" if name in new.get("required", ()) else "optional"
        if name in before:
            found.append(f"{path}.{name}: became {now}")
        elif now == "required":
            found.append(f"{path}.{name}: new field is required")
    for name in sorted(before.keys() & after.keys()):
        found += _compare(f"{path}.{name}", before[name], after[name])
    if "items" in old and "items" in new:
        found += _compare(f"{path}[]", old["items"], new["items"])
        old, new = ({k: v for k, v in side.items() if k != "items"} for side in (old, new))
    for key in sorted({k for k in (*old, *new) if k not in ("properties", "required")}):
        if old.get(key) != new.get(key):
            found.append(f"{path}: {key} changed from {old.get(key)!r} to {new.get(key)!r}")
    return found


_HEADERS: Schema = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {
            "type": "string",
            "minLength": 1,
            "description": "the same id is the same event, however often it comes",
        },
        "ce_source": {"type": "string", "minLength": 1, "description": "who says so, one per process"},
        "ce_type": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time", "description": "UTC; data, never order"},
        "ce_subject": {"type": "string"},
        "traceparent": {"type": "string", "description": "W3C Trace Context"},
        "content-type": {"const": "application/json"},
        "ce_sequence": {"type": "string", "pattern": "^[0-9]+$", "description": "chained producers: 1, 2, 3, …"},
        "ce_prevhash": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "chained producers: SHA-256 of the previous record (record_hash in schemas/envelope.py)",
        },
    },
}


def asyncapi(version: str) -> Schema:
    """The AsyncAPI 3.0 document of all topics. `version` is the product's."""
    channels: Schema = {}
    operations: Schema = {}
    for topic in TOPICS:
        name = topic.name.removeprefix("sijil.")
        channels[name] = {
            "address": topic.name,
            "description": topic.about,
            "messages": {e.TYPE: {"$ref": f"#/components/messages/{e.TYPE}"} for e in topic.events},
            "bindings": {
                "kafka": {
                    "topic": topic.name,
                    "topicConfiguration": {
                        "cleanup.policy": [TOPIC_CONFIGS["cleanup.policy"]],
                        "retention.ms": int(TOPIC_CONFIGS["retention.ms"]),
                        "max.message.bytes": int(TOPIC_CONFIGS["max.message.bytes"]),
                    },
                    "bindingVersion": "0.5.0",
                }
            },
        }
        if topic.events:
            for action in ("send", "receive"):
                operations[f"{action}-{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "messages": [{"$ref": f"#/channels/{name}/messages/{e.TYPE}"} for e in topic.events],
                }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sijil events",
            "version": version,
            "description": (
                "Every study arrival, report and access of the archive, as CloudEvents 1.0 in Kafka's binary mode. "
                "Events carry references and pseudonyms, never names, report text or pixels."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {e.TYPE: _message(e) for e in EVENTS},
            "schemas": {"CloudEventHeaders": _HEADERS},
        },
    }


def _message(event: type[Event]) -> Schema:
    topic = next(t for t in TOPICS if t.name == topic_of(event))
    payload = {k: v for k, v in json_schema(event).items() if k != "$schema"}
    return {
        "name": event.TYPE,
        "title": event.TYPE,
        "summary": payload["description"],
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
        "payload": {"schemaFormat": f"application/schema+json;version={_SCHEMA_FORMAT}", "schema": payload},
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": "0.5.0"}},
    }


_SCHEMA_FORMAT = "draft-07"
"""What AsyncAPI parsers accept; the keywords our payloads use mean the same in 2020-12."""
