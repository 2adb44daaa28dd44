"""HAPI's FHIR R4 validator: an independent reader of what the archive writes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.stack.install import java
from tests.jars import jars

HERE = Path(__file__).resolve().parent


def faults(resources: Iterable[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    """(number of the resource, where, what) of everything that is wrong, by one JVM for all of them."""
    lines = [json.dumps(r, ensure_ascii=False) for r in resources]
    command = [java(), "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]
    command += [f"{jars(HERE / 'pom.xml')}/*", str(HERE / "Validate.java")]
    done = subprocess.run(command, input="\n".join(lines).encode(), capture_output=True, timeout=280, check=False)
    told = [line.split("\t", 3) for line in done.stdout.decode().splitlines()]
    assert ["".join(t[:2]) for t in told[-1:]] == [f"{len(lines)}done"], done.stderr.decode()[-2000:]
    return [(int(number), where, what) for number, _, where, what in told[:-1]]
