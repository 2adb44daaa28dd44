"""What a hospital's own programs can do with Kafka and the published schemas, and nothing of ours.

`producer` and `consumer` import confluent-kafka, json and jsonschema only: they could be anybody's.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import confluent_kafka
import jsonschema
import pytest

from infra.settings import Role
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack

pytestmark = pytest.mark.connected

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas" / "json"


# ------------------------------------------------------------------------------------------------ anybody's producer


Login = dict[str, str | int | float | bool]


def login(whole: LocalStack, role: Role) -> Login:
    """What a role was given to log in with."""
    given = whole.settings(role)
    return {
        "bootstrap.servers": given.kafka_bootstrap,
        "security.protocol": given.kafka_security_protocol,
        "sasl.mechanism": given.kafka_sasl_mechanism,
        "sasl.username": given.kafka_username,
        "sasl.password": given.kafka_password,
        "ssl.ca.location": given.kafka_ca_file,
    }


def validate(event_type: str, event: dict[str, Any]) -> None:
    """Against the published schema."""
    jsonschema.validate(event, json.loads((SCHEMAS / f"{event_type}.schema.json").read_text(encoding="utf-8")))


def producer(login: Login, topic: str, key: str, event_type: str, event: dict[str, Any]) -> None:
    """Publish one event."""
    event_id = str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(event, sort_keys=True)))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    attributes = {"ce_specversion": "1.0", "ce_id": event_id, "ce_source": "/external/H01", "ce_type": event_type}
    headers: list[tuple[str, str | bytes | None]] = [(n, v.encode()) for n, v in {**attributes, "ce_time": now}.items()]
    kafka = confluent_kafka.Producer(
        {**login, "acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"}
    )
    kafka.produce(topic, json.dumps(event).encode(), key.encode(), headers=headers)
    assert kafka.flush(20) == 0


# ------------------------------------------------------------------------------------------------ anybody's consumer


def consumer(login: Login, seconds: float) -> dict[tuple[str, str], dict[str, Any]]:
    """Studies, bytes and reports per site and day, of everything that is on the topics."""
    kafka = confluent_kafka.Consumer(
        {**login, "group.id": f"sijil-analytics-{time.time_ns()}", "auto.offset.reset": "earliest"}
    )
    kafka.subscribe(["sijil.study.arrivals", "sijil.reports"])
    days: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"studies": set(), "packs": {}, "reports": set()})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = kafka.poll(0.2)
        if message is None or message.error():
            continue
        headers = dict(message.headers() or ())
        try:
            event = json.loads(message.value() or b"")
        except ValueError:
            continue
        if headers.get("ce_type") == b"study.pack-stored.v1" and "sealed" in event:
            day = days[event["site"], event["sealed"][:10]]
            day["studies"].add(event["study_uid"])
            day["packs"][event["pack_id"]] = event["pack_size"]
        elif headers.get("ce_type") == b"report.issued.v1":
            days[event["site"], event["issued"][:10]]["reports"].add((event["report_id"], event["version"]))
    kafka.close()
    return days


# ------------------------------------------------------------------------------------------------ tests


def rejected(n: int) -> dict[str, Any]:
    """A refusal by a gateway that is not ours."""
    return {
        "rejection_id": f"01900000-0000-7000-8000-{n:012}",
        "reason": "not-dicom",
        "site": "H01",
        "gateway": "/external/H01",
        "door": "dimse",
        "received": "2025-03-01T08:00:00Z",
        "size": 10,
        "sha256": hashlib.sha256(b"x").hexdigest(),
    }


def test_an_external_event_is_projected_and_a_broken_one_stops_nobody(archive: Archive, whole: LocalStack) -> None:
    gateway = login(whole, "gateway")
    broken = {**rejected(time.time_ns() % 10**11), "size": -1}
    with pytest.raises(jsonschema.ValidationError):
        validate("study.instance-rejected.v1", broken)
    producer(gateway, "sijil.study.arrivals", broken["rejection_id"], "study.instance-rejected.v1", broken)
    good = rejected(time.time_ns() % 10**11 + 1)
    validate("study.instance-rejected.v1", good)
    producer(gateway, "sijil.study.arrivals", good["rejection_id"], "study.instance-rejected.v1", good)

    def listed() -> bool:
        day = time.strftime("%Y%m%d", time.gmtime())
        days = {day, "20250301"}
        rows = [r for d in days for r in archive.json(f"/rejections?day={d}&limit=1000")["rejections"]]
        ids = {r["rejection_id"] for r in rows}
        assert broken["rejection_id"] not in ids
        return good["rejection_id"] in ids

    wait_until(listed, 30, "the event behind the broken one is projected")


def test_an_external_consumer_counts_what_was_sent(archive: Archive, whole: LocalStack, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path, studies=1, slices=4, seed=83, rows=32)
    assert archive.stow([i.path.read_bytes() for i in study]).status_code == 200
    wait_until(lambda: archive.instance_count(study[0].study) == 4, 30, "the study is queryable")
    days = consumer(login(whole, "analytics"), 10)
    mine = [d for d in days.values() if study[0].study in d["studies"]]
    assert len(mine) == 1
    assert sum(mine[0]["packs"].values()) > sum(i.path.stat().st_size for i in study)
