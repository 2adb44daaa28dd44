"""The real servers for whoever asks: one stack of servers and one whole archive per session.

Where `SIJIL_TEST_HOME` (servers) or `SIJIL_TEST_WHOLE` (an archive) names a home whose stack is up already, that one is
used and left as it is.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.settings import Settings
from tests import canary
from tests.archive import Archive
from tests.local_stack import SERVERS, LocalStack
from tests.matrix import pytest_runtest_logreport, pytest_runtest_makereport, pytest_sessionfinish

__all__ = ["pytest_runtest_logreport", "pytest_runtest_makereport", "pytest_sessionfinish"]

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("shared")

# Two fifths of the unit tests' CPU time went into looking for garbage in what stays: modules, test items, classes.
GENERATIONS = 20_000, 20, 20
gc.set_threshold(*GENERATIONS)


def pytest_collection_finish() -> None:
    """What is there before the first test stays until the last: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()


QUIET_S = 2.0
"""A study is complete so soon here, so that tests need not wait for a minute."""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Kafka, Cassandra and SeaweedFS with topics, tables and buckets, and nothing else on them."""
    running = os.environ.get("SIJIL_TEST_HOME")
    if running:
        yield LocalStack.running(Path(running))
        return
    own = LocalStack.at(tmp_path_factory.mktemp("servers") / ".sijil")
    own.start(SERVERS)
    yield own
    own.remove()


@pytest.fixture(scope="session")
def admin(stack: LocalStack) -> Settings:
    """Settings of the administrator of the session's servers."""
    return stack.settings("admin")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """All parts, on servers of their own: tests kill them. TLS between them, so that every way is tried by it."""
    running = os.environ.get("SIJIL_TEST_WHOLE")
    if running:
        yield LocalStack.running(Path(running))
        return
    own = LocalStack.at(tmp_path_factory.mktemp("archive") / ".sijil", quiet_s=QUIET_S, stack_tls=1)
    own.start()
    yield own
    # What the whole session has planted: a leak fails it, whichever test was the cause.
    found = canary.leaks(own)
    own.remove()
    assert not found, f"patient data where none may be: {found}"


@pytest.fixture
def archive(whole: LocalStack) -> Archive:
    """The doors of the whole archive."""
    return Archive(whole.settings("operator"))
