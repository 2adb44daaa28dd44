"""The health record of the tests: HAPI's JPA server as a process that can be killed and started again."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.jars import jars

HERE = Path(__file__).parent
FHIR = "application/fhir+json"


def classpath() -> str:
    """Of the server: the jars, fetched where they are not, and the class, compiled where it is not."""
    lib, source = jars(HERE / "pom.xml"), HERE / "EhrServer.java"
    classes = lib.with_name("ehr-classes")
    with lib.with_name("ehr-classes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = classes / "EhrServer.class"
        if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
            classes.mkdir(exist_ok=True)
            shutil.copy(HERE / "logback.xml", classes)
            command = ["javac", "-proc:none", "-d", str(classes), "-cp", f"{lib}/*", str(source)]
            subprocess.run(command, check=True, timeout=120)
    return f"{classes}:{lib}/*"


class EhrServer:
    """One server on a port of its own. What it has lies in a file: a killed one comes back with it."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """`port` 0: a free one."""
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = port or free.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}/fhir"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, validates: bool = True) -> None:
        """Start it; `ready` waits. To refuse what is not valid it reads the definitions of all of FHIR."""
        self._folder.mkdir(parents=True, exist_ok=True)
        java = ["java", "-Xmx640m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        database = f"-Dehr.db=jdbc:h2:file:{self._folder}/ehr;WRITE_DELAY=0"
        command = [*java, database, "-cp", classpath(), "EhrServer", str(self.port)]
        command += ["validate"] if validates else []
        with (self._folder / "ehr.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "LC_ALL": "C.UTF-8"})

    def ready(self, seconds: float = 400.0) -> EhrServer:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "ehr.log").read_text()[-2000:]
            try:
                if httpx.get(self.base + "/Patient?_summary=count", timeout=5).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError("the health record does not start")

    def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    # ---------------------------------------------------------------------------------------------- what it has

    def register(self, national_id: str, name: str = "منى حسن") -> None:
        """A person of the national record."""
        identifier = {"system": "urn:sijil:eg:national-id", "value": national_id}
        resource = {"resourceType": "Patient", "identifier": [identifier], "name": [{"text": name}]}
        done = httpx.post(f"{self.base}/Patient", json=resource, headers={"Content-Type": FHIR}, timeout=60)
        assert done.status_code == 201, done.text

    def find(self, search: str) -> list[dict[str, Any]]:
        """What a search finds, read anew."""
        answer = httpx.get(
            f"{self.base}/{search}", headers={"Accept": FHIR, "Cache-Control": "no-cache"}, timeout=60
        ).json()
        return [e["resource"] for e in answer.get("entry", [])]

    def of(self, kind: str, national_id: str) -> list[dict[str, Any]]:
        """What is filed under somebody."""
        return self.find(f"{kind}?subject.identifier=urn:sijil:eg:national-id|{national_id}&_count=200")
