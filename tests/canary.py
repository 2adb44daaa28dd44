"""What no log, figure, topic or dead letter may hold: looked for when a session's tests are over.

The names and identifiers here are those that the suite's own studies, reports, searches and fuzzed requests carry. A
test plants one more of its own by using PLANTED where a person's data go.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import httpx

from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.settings import Settings
from schemas.topics import TOPICS
from tests.local_stack import LocalStack

PLANTED = "Zzcanary"
ARABIC = "زقزوقعصفور"
"""No word: an Arabic name of the studies that plant it."""
CANARIES = tuple(text.encode() for text in (PLANTED, PLANTED.upper(), PLANTED.lower(), ARABIC))


def leaks(stack: LocalStack) -> list[str]:
    """Where one was found: `place: canary`. Every place is asked, or an error says that it could not be."""
    return [f"{place}: {canary.decode()}" for place, data in _places(stack) for canary in CANARIES if canary in data]


def _places(stack: LocalStack) -> Iterator[tuple[str, bytes]]:
    for file in sorted((stack.home / "logs").iterdir()):
        yield f"log {file.name}", file.read_bytes()
    settings = stack.settings("operator")
    yield from _topics(settings)
    objects = S3Objects(settings)
    for key in objects.list(settings.bucket_documents, "dead-letters/"):
        yield key, objects.get(settings.bucket_documents, key)  # encrypted
    for name, port in _figures(settings):
        yield f"figures of {name}", httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).content
    shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=True).stdout
    # The test process itself names what it looks for.
    yield "command lines", b"\n".join(line for line in shown.splitlines() if b"infra.cli" in line)


def _topics(settings: Settings) -> Iterator[tuple[str, bytes]]:
    log = KafkaLog(settings)
    try:
        for topic in TOPICS:
            for record in log.read(topic.name, {}, log.ends(topic.name)):
                place = record.position
                text = b"\0".join([record.key or b"", record.value or b"", *(v for _, v in record.headers)])
                yield f"{topic.name}/{place.partition}/{place.offset}", text
    finally:
        log.close()


def _figures(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("gateway", settings.gateway_health_port),
        ("worker", settings.worker_health_port),
        ("archiver", settings.archiver_health_port),
        ("delivery", settings.delivery_health_port),
        ("api", settings.http_port),
    ]
