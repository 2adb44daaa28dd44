"""`python -m tests.bench.bulk FOLDER [--first 0] [--count N]`: files into a running archive, past its doors.

For questions of scale: a million studies through STOW-RS would measure the doors. Each `*.dcm` below FOLDER becomes a
pack of its own (tar and manifest in S3, made by the producers' own code) and a chained event `study.pack-stored`;
everything from the event on is the archive's usual way. Only for a throw-away archive on the same machine: it publishes
as the broker's superuser. Run from the folder whose `.sijil` is the archive's home, with the same SIJIL_ settings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

from rich.console import Console

from infra.chain import ChainedLog, Publication
from infra.clock import now, rfc3339, uuid7
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.settings import Settings
from producers import tar
from producers.identify import identify_file
from producers.journal import Member, Opened, Sealed
from producers.manifest import Stored, manifest
from producers.publish import MANIFEST_TYPE, PACK_TYPES, event_id
from schemas.events import PackStored
from schemas.pack import IDENTITY, Sender, manifest_key, pack_key
from tests.local_stack import superuser

THREADS = 4
AHEAD = 2_000
"""Files under way in one process: what waits for Kafka stays bounded."""
SITE = "LOCAL"


class Loader:
    """One process's share."""

    def __init__(self, number: int, folder: Path) -> None:
        self._settings = Settings.load("gateway", os.environ)
        self._log = KafkaLog(superuser(Settings.load("admin", os.environ)), linger_ms=5)
        self._gateway = f"bulk-{number}"
        self._chain = ChainedLog(
            self._log, folder, f"/bench/{SITE}/{self._gateway}", backlog_max=8 * AHEAD, anchors=None
        )
        self._objects = S3Objects(self._settings)

    def load(self, files: Sequence[Path]) -> None:
        """All of them, acknowledged by Kafka on return."""
        with ThreadPoolExecutor(THREADS) as threads:
            rest = iter(files)
            while batch := list(islice(rest, AHEAD)):
                published = list(threads.map(self._one, batch))
                wait([p.acknowledged for p in published])
        self._chain.close(30)
        self._log.close()

    def _one(self, path: Path) -> Publication:
        data = path.read_bytes()
        view, moment = memoryview(data), rfc3339(now())
        found = identify_file(view, sender=Sender(door="import"))
        head = tar.header(f"{found.sop_uid}.dcm", len(data), int(now().timestamp()))
        whole = b"".join((head, data, tar.padding(len(data)), tar.END))
        opened = Opened(
            pack_id=str(uuid7()),
            study_uid=found.study_uid,
            site=SITE,
            issuer=SITE,
            gateway=self._gateway,
            opened=moment,
        )
        member = Member(
            name=f"{found.sop_uid}.dcm",
            entry=0,
            offset=len(head),
            length=len(data),
            dataset_offset=found.dataset_offset,
            sha256=sha256(view[found.dataset_offset :]).hexdigest(),
            crc=zlib.crc32(view[: found.dataset_offset], zlib.crc32(head)),
            study_uid=found.study_uid,
            series_uid=found.series_uid,
            sop_uid=found.sop_uid,
            sop_class=found.sop_class,
            transfer_syntax=found.transfer_syntax,
            received=moment,
            sender=found.sender,
            marks=found.marks,
        )
        sealed = Sealed(size=len(whole), crc=zlib.crc32(whole), instances=1, repeats=0, sealed=moment)
        digest = sha256(whole).hexdigest()
        listed = manifest(opened, sealed, [opened, member, sealed], memoryview(whole), Stored(len(whole), digest))
        listed_digest = sha256(listed).hexdigest()
        bucket, key = self._settings.bucket_packs, pack_key(opened.pack_id, IDENTITY)
        self._objects.put(bucket, key, whole, sha256=digest, content_type=PACK_TYPES[IDENTITY])
        listed_key = manifest_key(opened.pack_id)
        self._objects.put(bucket, listed_key, listed, sha256=listed_digest, content_type=MANIFEST_TYPE)
        event = PackStored(
            pack_id=opened.pack_id,
            study_uid=opened.study_uid,
            site=SITE,
            gateway=self._gateway,
            door="import",
            bucket=bucket,
            pack_key=key,
            pack_size=len(whole),
            pack_sha256=digest,
            manifest_key=listed_key,
            manifest_size=len(listed),
            manifest_sha256=listed_digest,
            instances=1,
            repeats=0,
            opened=moment,
            sealed=moment,
        )
        return self._chain.publish(event, id=event_id(opened.pack_id))


def share(files: Sequence[Path], number: int) -> None:
    """Load one process's share."""
    with tempfile.TemporaryDirectory(prefix="sijil-bulk-") as folder:
        Loader(number, Path(folder)).load(files)


def main() -> None:
    """Parse, share out, load."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bulk", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    files = sorted(given.folder.rglob("*.dcm"))[given.first :][: given.count]
    started, base = time.monotonic(), os.getpid()
    parts = [
        multiprocessing.Process(target=partial(share, files[n :: given.processes], base + n))
        for n in range(given.processes)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    took = time.monotonic() - started
    Console().print(f"{len(files)} studies published in {took:.1f} s, {len(files) / took:.0f} a second")
    raise SystemExit(any(part.exitcode for part in parts))


if __name__ == "__main__":
    main()
