"""The matrix of what was seen to work with which client."""

from __future__ import annotations

from tests.matrix import merged, table


def test_a_run_replaces_what_it_ran_and_keeps_the_rest() -> None:
    known = {"C-STORE": {"dcmtk storescu": {"a": "failed", "b": "passed"}}}
    new = {"C-STORE": {"dcmtk storescu": {"a": "passed"}}, "C-GET": {"dcmtk getscu": {"c": "skipped"}}}
    whole = merged(known, new)
    assert whole["C-STORE"]["dcmtk storescu"] == {"a": "passed", "b": "passed"}
    assert known["C-STORE"]["dcmtk storescu"]["a"] == "failed"
    assert table(whole).splitlines()[2:] == [
        "| | dcmtk getscu | dcmtk storescu |",
        "|---|---|---|",
        "| C-GET | 1 skipped |  |",
        "| C-STORE |  | 2 ok |",
    ]
