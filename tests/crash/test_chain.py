"""The publishing process is killed between each two steps of `infra.chain`, and started again.

Afterwards every event it had called kept is in the log, the chain has no gap, and repetitions are identical.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from infra import faults
from schemas.chain import Links, follow
from schemas.envelope import Record, decode, link_of, record_hash

CHILD = Path(__file__).with_name("chain_child.py")
ROOT = Path(__file__).resolve().parents[2]
COUNT, COUNT_MAX = 12, 10_000
POINTS = ("chain.before-fsync", "chain.after-fsync", "chain.after-send", "chain.after-ack", "chain.before-forget")


def run(folder: Path, log: Path, life: int, fault: str = "") -> tuple[list[str], int]:
    """(ids of events called kept, exit status) of one life. One that is to be killed publishes until it is: how often
    it passes a step between two events depends on its threads' turns.
    """
    environment = {**os.environ, faults.VARIABLE: fault, "PYTHONPATH": str(ROOT)}
    child = subprocess.run(
        [sys.executable, CHILD, folder, log, str(life * COUNT_MAX), str(COUNT_MAX if fault else COUNT)],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    return child.stdout.decode().split(), child.returncode


@pytest.mark.parametrize("passing", [1, 2, 7])
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_started_again(tmp_path: Path, point: str, passing: int) -> None:
    folder, log = tmp_path / "chain", tmp_path / "log"
    kept: list[str] = []
    for life, fault in enumerate((f"{point}:{passing}", f"{point}:{passing}", "")):
        ids, status = run(folder, log, life, fault)
        assert status == (-9 if fault else 0)
        kept += ids
    records = [msgspec.json.decode(line, type=Record) for line in log.read_bytes().splitlines()]
    chain: dict[int, Record] = {}
    for record in records:
        link = link_of(record.headers)[1]
        assert link is not None
        assert chain.setdefault(link.sequence, record) == record
    published = {decode(r.topic, r.key, r.headers, r.value).id for r in chain.values()}
    assert set(kept) <= published
    assert len(published) == len(chain)
    links = (
        Links(n, record_hash(r), link.prevhash) for n, r in sorted(chain.items()) if (link := link_of(r.headers)[1])
    )
    assert list(follow(links)) == []
    if point != "chain.before-fsync":
        assert len(kept) >= COUNT
