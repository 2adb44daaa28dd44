"""A running archive as its users see it: send, ask, compare, and kill a part. Used by the stack and crash tests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from infra.settings import Settings
from infra.stack import status

T = TypeVar("T")

DCMTK = Path("/usr/bin")
"""By absolute path: pynetdicom installs programs of the same names into the environment."""

DICOM_JSON = {"Accept": "application/dicom+json"}
BOUNDARY = "sijil-test"


def dcmtk(program: str) -> str:
    """The path of a DCMTK program, which says that it is DCMTK's."""
    path = str(DCMTK / program)
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert "dcmtk" in said, f"{path} is not DCMTK's"
    return path


def wait_until(check: Callable[[], T], within_s: float, what: str) -> T:
    """The first true answer of `check`; errors of a part that is away count as not yet."""
    deadline = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            if answer := check():
                return answer
            last = answer
        except (httpx.HTTPError, AssertionError) as e:
            last = type(e).__name__
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {within_s:.0f} s (last: {last!r})")


def dataset(part10: bytes) -> bytes:
    """What follows the File Meta Information (PS3.10 §7.1)."""
    assert part10[128:132] == b"DICM"
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Archive:
    """The doors of one local stack, and its processes."""

    settings: Settings

    @property
    def base(self) -> str:
        """URL of the HTTP door."""
        return f"http://{self.settings.http_host}:{self.settings.http_port}"

    def get(self, path: str, accept: str = "application/json", **headers: str) -> httpx.Response:
        """One GET on a connection of its own."""
        return httpx.get(self.base + path, headers={"Accept": accept, **headers}, timeout=60)

    def json(self, path: str) -> Any:
        """Parsed body of a 200; an empty list for a 204."""
        answer = self.get(path, "application/dicom+json, application/json")
        assert answer.status_code in (200, 204), f"{answer.status_code} {answer.text[:300]}"
        return json.loads(answer.content) if answer.content else []

    def post_json(self, path: str, document: object) -> httpx.Response:
        """One POST of a FHIR resource."""
        headers = {"Content-Type": "application/fhir+json"}
        return httpx.post(self.base + path, content=json.dumps(document).encode(), headers=headers, timeout=60)

    def stow(self, files: Sequence[bytes], study: str = "") -> httpx.Response:
        """One STOW-RS request."""
        head = f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + f for f in files) + f"\r\n--{BOUNDARY}--\r\n".encode()
        return httpx.post(
            f"{self.base}/dicom-web/studies" + (f"/{study}" if study else ""),
            content=body,
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
                **DICOM_JSON,
            },
            timeout=120,
        )

    def storescu(
        self, files: Sequence[Path], *options: str, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """DCMTK's storescu to the DICOM door; files may be folders with `+sd +r` among the options."""
        where = ["-aec", self.settings.ae_title, self.settings.dicom_host, str(self.settings.dicom_port)]
        return subprocess.run(
            [dcmtk("storescu"), *options, *where, *map(str, files)],
            capture_output=True,
            text=True,
            env={**os.environ, "TCP_NODELAY": "1"},
            timeout=timeout_s,
            check=False,
        )

    def study(self, study_uid: str) -> dict[str, Any] | None:
        """The study's QIDO-RS row, or None."""
        rows = self.json(f"/dicom-web/studies?StudyInstanceUID={study_uid}")
        assert len(rows) <= 1, "a study is found more than once"
        return rows[0] if rows else None

    def instance_count(self, study_uid: str) -> int:
        """00201208 of a study; 0 when it is not found."""
        row = self.study(study_uid)
        return int(row["00201208"]["Value"][0]) if row else 0

    def instance_uids(self, study_uid: str) -> list[str]:
        """SOP Instance UIDs that QIDO-RS lists, page by page, repeated ones included."""
        found: list[str] = []
        while True:
            page = self.json(f"/dicom-web/studies/{study_uid}/instances?limit=500&offset={len(found)}")
            found += [row["00080018"]["Value"][0] for row in page]
            if len(page) < 500:
                return found

    def original(self, study: str, series: str, sop: str) -> bytes:
        """The stored Part 10 file."""
        path = f"/dicom-web/studies/{study}/series/{series}/instances/{sop}/original"
        answer = self.get(path, "application/dicom")
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:300]}"
        return answer.content

    def parts(self) -> dict[str, status.PartStatus]:
        """What `sijil status` shows, by name."""
        return {p.name: p for p in status.collect(self.settings)}

    def kill(self, part: str) -> int:
        """SIGKILL a part; returns the pid that was killed."""
        pid = self.parts()[part].pid
        assert pid is not None, f"{part} is not running"
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ready(self, within_s: float = 90) -> None:
        """Until every part is ready."""
        wait_until(lambda: all(p.health == "ready" for p in self.parts().values()), within_s, "every part ready")

    def drained(self) -> bool:
        """Whether no gateway holds anything that is not yet in S3 and Kafka."""
        parts = self.parts()
        return all((parts[n].spool_backlog, parts[n].chain_backlog) == (0, 0) for n in ("gateway", "api"))
