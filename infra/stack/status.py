"""What `sijil status` shows: the supervisor's state, memory, and the figures each process tells of itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil

from infra.settings import Settings
from infra.stack import parts, probes
from infra.stack.errors import NotReady
from infra.stack.state import PartState, RunFolder


@dataclass(frozen=True)
class PartStatus:
    """One part. Figures that it does not have are None; `lag` counts records, the backlogs packs and events."""

    name: str
    pid: int | None
    port: int
    health: str
    memory_mb: int | None
    lag: int | None
    spool_backlog: int | None
    chain_backlog: int | None
    restarts: int
    why: str


def collect(settings: Settings) -> list[PartStatus]:
    """Every part the supervisor was told to run; none if it does not run and left nothing."""
    run = RunFolder(settings.home)
    known = run.read()
    children = run.children()
    supervised = run.supervisor() is not None
    if known is None or (not supervised and not children):
        return []
    with ThreadPoolExecutor(len(known.parts) or 1) as pool:
        figures = list(pool.map(lambda p: _figures(settings, p.name), known.parts))
    return [
        _status(p, children[p.name].pid if p.name in children else None, told, supervised)
        for p, told in zip(known.parts, figures, strict=True)
    ]


def _status(part: PartState, pid: int | None, told: dict[str, Any], supervised: bool) -> PartStatus:
    health, why = part.health, part.why
    if not supervised:
        health, why = ("orphaned" if pid else "stopped"), "its supervisor is gone: `sijil down` or `sijil up`"
    return PartStatus(
        part.name,
        pid,
        part.port,
        health,
        _memory_mb(pid),
        told.get("lag"),
        told.get("spool_backlog"),
        told.get("chain_backlog"),
        part.restarts,
        why,
    )


def _memory_mb(pid: int | None) -> int | None:
    try:
        return psutil.Process(pid).memory_info().rss >> 20 if pid else None
    except psutil.Error:
        return None


def _figures(settings: Settings, name: str) -> dict[str, Any]:
    part = parts.BY_NAME.get(name)
    port = part.health_port(settings) if part else None
    if part is None or port is None:
        return {}
    try:
        return probes.health(part.health_host(settings), port)
    except NotReady:
        return {}
