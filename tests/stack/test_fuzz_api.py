"""Anything may be read of the archive on its real servers: it answers, with no fault of its own, in a bounded time.

What changes something is asked for in the same way over ports in memory (`tests/unit/consumers/test_fuzz_http.py`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from tests import fuzz
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.unit.consumers.test_fuzz_http import QUERIES, raw

pytestmark = pytest.mark.connected

LEVELS = ("studies", "series", "instances", "studies/{study}/series", "studies/{study}/instances")
SAFE = frozenset({200, 204, 400, 404, 406, 414, 416, 431})
"""Of a search that nobody is refused; 503 would be a server that is away."""


@pytest.fixture
def known(archive: Archive, tmp_path: Path) -> dict[str, str]:
    """What a study's addresses are made of."""
    (instances,) = make_ct(tmp_path, studies=1, slices=2, seed=515_008, rows=32)
    assert archive.stow([i.path.read_bytes() for i in instances]).status_code == 200
    one = instances[0]
    wait_until(lambda: archive.instance_count(one.study) == 2, 60, "the study is found")
    parts = {"study": one.study, "series": one.series, "instance": one.sop, "frames": "1"}
    return parts | {"key": str(archive.json(f"/studies/{one.study}")["patient_key"])}


def test_whatever_is_read(archive: Archive, known: dict[str, str]) -> None:
    schema = schemathesis.openapi.from_url(f"{archive.base}/openapi.json").include(method="GET")
    with requests.Session() as session:

        def ask(case: Case[Any]) -> int:
            return int(case.call(session=session, timeout=20).status_code)

        statuses = fuzz.run(schema, ask, known, (GenerationMode.NEGATIVE,))
    counted = Counter(status for found in statuses.values() for status in found)
    assert counted[200] > 40, counted
    assert not counted[503], "none of the servers gave up"

    @given(st.sampled_from(LEVELS), QUERIES)
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def search(level: str, query: str) -> None:
        target = f"/dicom-web/{level.format(study=known['study'])}?{query}"
        assert raw(archive.settings.http_port, target.encode()) in SAFE

    search()
