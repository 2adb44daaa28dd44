"""One thread that makes written bytes durable, for everybody who waits at once.

What is written when a round begins is covered by it: each pack's tar and journal are synced (fdatasync), then the
folder if files were made in it, then all who waited are told. An error of fsync says that bytes may be gone which the
kernel no longer has: it is never retried. It fails the waiters and everyone after them, and the process ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from infra import faults, telemetry
from producers.open_pack import OpenPack
from schemas.errors import Transient

log = telemetry.logger(__name__)

SYNC_SECONDS = telemetry.Histogram(
    "sijil_spool_sync_seconds",
    "One round of the spool's committer",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
WAITERS = telemetry.Histogram(
    "sijil_spool_sync_waiters", "Instances made durable by one round", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
EXIT_STATUS = 74
"""EX_IOERR: the disk did not keep what it was given."""
LAST_ANSWERS_S = 0.5
"""How long the process lives on after an error of fsync, so that the waiters can tell their senders."""


class SpoolBroken(Transient):
    """The disk failed; nothing is acknowledged any more and the process ends."""


def end_process(error: BaseException) -> None:
    """What happens at an error that no retry may hide."""
    log.error("spool broken: the process ends", error=error)
    timer = threading.Timer(LAST_ANSWERS_S, os._exit, (EXIT_STATUS,))
    timer.daemon = True
    timer.start()


class Committer:
    """Futures in, futures resolved once what was written before is on disk."""

    def __init__(self, folder: Path, fatal: Callable[[BaseException], None] = end_process) -> None:
        self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fatal = fatal
        self._wake = threading.Condition()
        self._waiting: list[tuple[OpenPack, Future[Any], Any]] = []
        self._broken: SpoolBroken | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="spool-committer", daemon=True)
        self._thread.start()

    def submit(self, pack: OpenPack, result: Any) -> Future[Any]:
        """Resolves with `result` when everything written to `pack` until now is durable."""
        future: Future[Any] = Future()
        with self._wake:
            if self._broken:
                raise self._broken
            self._waiting.append((pack, future, result))
            if len(self._waiting) == 1:
                self._wake.notify()
        return future

    def fail(self, error: BaseException) -> None:
        """The spool is broken for a reason found elsewhere."""
        with self._wake:
            if self._broken is None:
                self._broken = SpoolBroken("the spool is broken")
                self._fatal(error)

    def close(self) -> None:
        """Sync what waits and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        os.close(self._folder_fd)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                round_, self._waiting = self._waiting, []
                if not round_:
                    return
            try:
                self._sync([pack for pack, _, _ in round_])
                faults.point("spool.after-fsync")
            except OSError as error:
                self.fail(error)
            for _, future, result in round_:
                if self._broken:
                    future.set_exception(self._broken)
                else:
                    future.set_result(result)

    def _sync(self, packs: list[OpenPack]) -> None:
        with SYNC_SECONDS.time():
            distinct = list(dict.fromkeys(packs))
            for pack in distinct:
                os.fdatasync(pack.tar_fd)
                os.fdatasync(pack.journal_fd)
            # A file that a crash can unname is not there: its folder comes last, and before any answer.
            fresh = [pack for pack in distinct if pack.fresh]
            if fresh:
                os.fsync(self._folder_fd)
                for pack in fresh:
                    pack.fresh = False
        WAITERS.observe(len(packs))
