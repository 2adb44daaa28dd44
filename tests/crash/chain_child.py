"""A process that publishes events and tells which are kept, until it is killed: arguments FOLDER LOG FIRST COUNT.

The log is a file, so that what was sent outlives this process; it answers from a thread of its own, as Kafka's client.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import msgspec

from infra.chain import ChainedLog
from infra.ports import Position, Stored
from schemas.envelope import Record
from tests.unit.infra.chains import SOURCE, rejected


class FileLog:
    """One partition, a line a record."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._sent: queue.SimpleQueue[tuple[Record, Future[Position]]] = queue.SimpleQueue()
        threading.Thread(target=self._answer, daemon=True).start()

    def append(self, record: Record) -> Future[Position]:
        future: Future[Position] = Future()
        self._sent.put((record, future))
        return future

    def _answer(self) -> None:
        while True:
            record, future = self._sent.get()
            self._file.write(msgspec.json.encode(record) + b"\n")
            future.set_result(Position(record.topic, 0, self._file.tell()))

    def read(self, topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Stored]:
        raise NotImplementedError("nothing reads here")

    def ends(self, topic: str) -> dict[int, int]:
        raise NotImplementedError("nothing reads here")

    def since(self, topic: str, from_ms: int) -> dict[int, int]:
        raise NotImplementedError

    def close(self) -> None:
        self._file.close()


def main(folder: Path, log: Path, first: int, count: int) -> None:
    # Small segments, and a note of the acknowledged after each batch: every step happens many times.
    chain = ChainedLog(
        FileLog(log), folder, SOURCE, backlog_max=1_000, anchors=None, mark_interval_s=0.001, segment_bytes=3_000
    )
    for n in range(first, first + count):
        publication = chain.publish(rejected(n))
        publication.kept.result(30)
        os.write(1, f"{publication.id}\n".encode())
    chain.close(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
