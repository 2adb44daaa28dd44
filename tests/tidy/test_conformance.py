"""The conformance statement has its parts, and says of each service what PS3.2 asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.conformance import FILE

TEXT = (Path(__file__).resolve().parent.parent.parent / FILE).read_text(encoding="utf-8")


def test_its_sections_are_numbered_and_none_is_left_unwritten() -> None:
    top = [int(n) for n in re.findall(r"^## (\d+) \S", TEXT, re.M)]
    assert top == list(range(1, len(top) + 1))
    assert len(top) >= 10
    assert not re.search(r"\{[^a-z]", TEXT)  # paths have names in braces, nothing else has


@pytest.mark.parametrize(
    "service", ["Verification", "Storage", "Storage Commitment Push Model", "C-FIND", "C-MOVE", "C-GET", "STOW-RS"]
)
def test_each_service_has_a_section_with_statuses(service: str) -> None:
    section = re.search(rf"^### [\d.]+ [^\n]*{re.escape(service)}[^\n]*\n(.*?)(?=^##|\Z)", TEXT, re.M | re.S)
    assert section is not None
    assert "| Status | When |" in section[1]


def test_what_is_stored_and_what_is_asked_stand_in_the_contexts() -> None:
    for uid in ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.2"):
        assert f"`{uid}`" in TEXT
    # The table of storage classes is whole: without it the doors were asked while a room was not installed.
    assert TEXT.count("`1.2.840.10008.5.1.4.1.1.") > 150
