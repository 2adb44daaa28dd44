"""What the issuer remembers of its grants, and for how long."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from infra import clock
from infra.identity.grants import ENDED_KEPT_S, Grant, Grants


def test_what_is_over_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, began = tmp_path / "grants.json", clock.now()
    grants = Grants(file)

    def kept() -> dict[str, list[str]]:
        found = json.loads(file.read_bytes())
        return {"grants": [g["id"] for g in found["grants"]], "used": [*found["used"]], "ended": [*found["ended"]]}

    def grant(id: str, until_s: float) -> Grant:
        return Grant(id, "hoda", "digest", "web", "nonce", began.timestamp() + until_s, f"refresh-{id}")

    grants.use("code-short", "short")
    grants.use("code-long", "long")
    grants.put(grant("short", 60))
    grants.put(grant("long", 3 * ENDED_KEPT_S))
    grants.put(grant("stolen", 60))
    grants.end("stolen")
    assert kept() == {"grants": ["short", "long"], "used": ["code-short", "code-long"], "ended": ["stolen"]}
    monkeypatch.setattr(clock, "now", lambda: began + timedelta(seconds=61))
    grants.put(grant("new", ENDED_KEPT_S))
    assert kept() == {"grants": ["long", "new"], "used": ["code-long"], "ended": ["stolen"]}
    assert grants.of_refresh("refresh-short") is None
    assert grants.of_refresh("refresh-long") is not None
    monkeypatch.setattr(clock, "now", lambda: began + timedelta(seconds=ENDED_KEPT_S + 62))
    grants.put(grant("last", 2 * ENDED_KEPT_S))
    assert kept() == {"grants": ["long", "last"], "used": ["code-long"], "ended": []}
    assert Grants(file).used("code-long") == "long"
