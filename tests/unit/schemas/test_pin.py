"""PINs as they are typed and kept."""

from __future__ import annotations

import pytest

from schemas.pin import hashed, matches

KEPT = hashed("048213", b"0123456789abcdef")


@pytest.mark.parametrize("typed", ["048213", "٠٤٨٢١٣", "۰۴۸۲۱۳", "048 213", "048-213", "\u200f٠٤٨ ٢١٣"])
def test_however_it_is_typed(typed: str) -> None:
    assert matches(typed, KEPT)


@pytest.mark.parametrize("typed", ["", "48213", "048214", "0482130", "٠٤٨٢١٤"])
def test_another_is_not_it(typed: str) -> None:
    assert not matches(typed, KEPT)


@pytest.mark.parametrize("kept", ["", "048213", "scrypt$", "scrypt$$", "scrypt$a$b", "md5$MDEy$MDEy"])
def test_what_is_no_hash_matches_nothing(kept: str) -> None:
    assert not matches("048213", kept)


def test_the_pin_does_not_show_and_salts_differ() -> None:
    assert "048213" not in KEPT
    assert hashed("048213", b"fedcba9876543210") != KEPT
