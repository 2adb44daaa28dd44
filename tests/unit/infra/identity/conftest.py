"""Passwords of these tests cost nothing to try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.identity import users


@pytest.fixture(autouse=True, scope="package")
def cheap_passwords() -> Iterator[None]:
    """scrypt's cost is not what is tested, and every world has a user of every role."""
    kept = users.COST
    users.COST = 2
    yield
    users.COST = kept
