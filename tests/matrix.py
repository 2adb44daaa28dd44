"""The matrix feature × client, made of what tests did: `@pytest.mark.client("dcmtk storescu", feature="C-STORE")`.

After every run in which a marked test took part, `bench-results/clients.json` and `clients.md` say for each pair how
many tests passed, failed or were skipped. A run of some tests replaces what it has run and keeps the rest, so that the
whole is the union of the runs since the file was removed. Hooks for `tests/conftest.py`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "bench-results"
MARK = "client"
ORDER = ("failed", "skipped", "passed")

Outcomes = dict[str, dict[str, dict[str, str]]]
"""Feature → client → test → outcome."""

_outcomes: Outcomes = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the marks in the report of each phase."""
    report = yield
    report.user_properties += [(MARK, [mark.kwargs["feature"], mark.args[0]]) for mark in item.iter_markers(MARK)]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the outcome of each phase of a marked test; the worst counts."""
    for name, value in report.user_properties:
        if name == MARK:
            feature, client = cast("list[str]", value)
            tests = _outcomes.setdefault(feature, {}).setdefault(client, {})
            tests[report.nodeid] = min(tests.get(report.nodeid, "passed"), report.outcome, key=ORDER.index)


def pytest_sessionfinish() -> None:
    """Write the two files."""
    if _outcomes:
        FOLDER.mkdir(exist_ok=True)
        file = FOLDER / "clients.json"
        known: Outcomes = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        whole = merged(known, _outcomes)
        file.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (FOLDER / "clients.md").write_text(table(whole), encoding="utf-8")


def merged(known: Outcomes, new: Outcomes) -> Outcomes:
    """Both, what is new over what is known."""
    found: Outcomes = {f: {c: dict(t) for c, t in clients.items()} for f, clients in known.items()}
    for feature, clients in new.items():
        for client, tests in clients.items():
            found.setdefault(feature, {}).setdefault(client, {}).update(tests)
    return found


def table(whole: Outcomes) -> str:
    """Markdown: a row for each feature, a column for each client."""
    clients = sorted({c for row in whole.values() for c in row})
    lines = ["# What was seen to work with which client", ""]
    lines += [f"| | {' | '.join(clients)} |", f"|---|{'---|' * len(clients)}"]
    lines += [
        f"| {feature} | {' | '.join(_cell(row.get(c, {})) for c in clients)} |" for feature, row in _sorted(whole)
    ]
    return "\n".join(lines) + "\n"


def _cell(tests: Mapping[str, Any]) -> str:
    counts = {o: sum(found == o for found in tests.values()) for o in ORDER}
    return ", ".join(f"{n} {'ok' if o == 'passed' else o}" for o, n in counts.items() if n)


def _sorted(whole: Outcomes) -> list[tuple[str, dict[str, dict[str, str]]]]:
    return sorted(whole.items())
