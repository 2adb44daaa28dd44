"""axe-core (Deque, MPL-2.0; npm): what of WCAG 2.2 AA a program can see on a page."""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from infra.stack import npm
from tests.browser import Page
from tests.local_stack import ROOT

PACKAGE = "axe-core@4.14.1"
INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
KEPT = ROOT / ".sijil" / "axe" / f"{PACKAGE.replace('@', '-')}.js"
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def source() -> str:
    """Its script, fetched once. Raises StackError where npm's registry cannot be reached."""
    if not KEPT.exists():
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT.parent) as work:
            with tarfile.open(npm.fetch(PACKAGE, INTEGRITY, Path(work))) as tar:
                member = tar.extractfile("package/axe.min.js")
                assert member is not None
                (new := Path(work) / "axe.js").write_bytes(member.read())
            new.rename(KEPT)
    return KEPT.read_text(encoding="utf-8")


async def faults(page: Page, script: str) -> list[str]:
    """What is wrong with what the tab shows: rule, what it wants, and where."""
    options = json.dumps({"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]})
    await page.evaluate(f"{script}; 0")
    found: dict[str, Any] = await page.evaluate(
        f"axe.run(document, {options}).then(r => ({{passed: r.passes.length, violations: r.violations.map(v =>"
        " ({id: v.id, help: v.help, at: v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + ' ' +"
        " (n.any[0] ? n.any[0].message : ''))}))}))"
    )
    assert found["passed"] > 10, "it looked at the page"
    return [f"{f['id']}: {f['help']}: {' | '.join(f['at'])}" for f in found["violations"]]
