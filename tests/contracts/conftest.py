from __future__ import annotations

import os

import pytest

from infra.settings import Settings


@pytest.fixture(scope="session")
def admin(request: pytest.FixtureRequest) -> Settings:
    """Settings of the administrator of the session's servers."""
    return Settings.load("admin", os.environ)
