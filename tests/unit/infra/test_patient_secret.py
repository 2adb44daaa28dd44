"""Who may make patient keys, and with which secret: no process gives patients second files."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from infra import patient_secret, service
from infra.memory import MemoryTables
from infra.patient_secret import RETIRING, Holder, PatientSecretError, agreed, fingerprints, settle
from infra.settings import Settings
from schemas.errors import Transient
from schemas.patient_keys import PatientSecret, PatientSecrets
from schemas.tables import STATE_KEYSPACE

T = TypeVar("T")
FIRST, SECOND, OTHER = (PatientSecret(n, bytes([n, m]) * 16) for n, m in ((1, 1), (2, 1), (1, 9)))
ONE, BOTH, NEWEST = PatientSecrets(FIRST), PatientSecrets(SECOND, FIRST), PatientSecrets(SECOND)


def run(call: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(call)


@pytest.fixture
def state() -> MemoryTables:
    return MemoryTables().with_keyspace(STATE_KEYSPACE)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_secret, "LOOK_S", 0.01)


@pytest.mark.parametrize(
    ("known", "given", "works_with", "afterwards"),
    [
        (None, ONE, ONE, ONE),  # the first who ever made keys
        (ONE, ONE, ONE, ONE),
        (ONE, BOTH, BOTH, BOTH),  # a replacement begins
        (BOTH, BOTH, BOTH, BOTH),
        (NEWEST, BOTH, NEWEST, NEWEST),  # retired, and not taken out of the setting yet
        (NEWEST, NEWEST, NEWEST, NEWEST),
    ],
)
def test_which_secrets_are_the_archive_s(
    state: MemoryTables,
    known: PatientSecrets | None,
    given: PatientSecrets,
    works_with: PatientSecrets,
    afterwards: PatientSecrets,
) -> None:
    if known is not None:
        run(settle(state, known.fingerprints))
    assert run(agreed(state, given)) == works_with
    assert run(fingerprints(state)) == afterwards.fingerprints


@pytest.mark.parametrize(
    ("known", "given", "why"),
    [
        (ONE, PatientSecrets(OTHER), "is not the secret of this archive"),
        (ONE, NEWEST, "is not the secret of this archive"),  # the previous one was thrown away too early
        (ONE, PatientSecrets(SECOND, OTHER), "is not the secret of this archive"),
        (BOTH, ONE, "the previous one alone"),
        (BOTH, NEWEST, "lacks the previous"),
        (NEWEST, ONE, "is not the secret of this archive"),
    ],
)
def test_another_secret_is_refused_with_what_to_do(
    state: MemoryTables, known: PatientSecrets, given: PatientSecrets, why: str
) -> None:
    run(settle(state, known.fingerprints))
    holder = Holder(state, given, "worker A/1")
    with pytest.raises(PatientSecretError, match=why) as refused:
        run(holder.admitted())
    assert given.newest.value.hex() not in str(refused.value)
    assert run(fingerprints(state)) == known.fingerprints
    assert run(Holder(state, known, RETIRING).others()) == [], "who is refused is in nobody's way"


def test_a_process_without_a_secret_does_not_start(state: MemoryTables) -> None:
    with pytest.raises(Exception, match="SIJIL_PATIENT_SECRET"):
        Holder.of(Settings(), "worker", state)


def test_while_a_secret_is_retired_others_end_and_wait(state: MemoryTables) -> None:
    async def story() -> None:
        worker, retiring = Holder(state, BOTH, "worker A/1"), Holder(state, BOTH, RETIRING)
        assert await worker.admitted() == BOTH
        watching = asyncio.create_task(worker.watch())
        await retiring.hold()
        with pytest.raises(Transient, match="worker A/1"):
            await retiring.alone(0.0)
        assert await watching == service.SWITCHED
        await worker.released()
        await retiring.alone(1.0)
        waits = asyncio.create_task(Holder(state, BOTH, "worker A/1").admitted())
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not waits.done()
        await settle(state, NEWEST.fingerprints)
        await retiring.released()
        assert await asyncio.wait_for(waits, 5) == NEWEST

    run(story())


def test_work_ends_when_it_may_go_on_no_longer(state: MemoryTables) -> None:
    async def story() -> None:
        rebuild, retiring = Holder(state, ONE, "rebuild of x"), Holder(state, ONE, RETIRING)
        await rebuild.admitted()
        assert await rebuild.during(asyncio.sleep(0, "done")) == "done"
        await retiring.hold()
        with pytest.raises(Transient, match="begin again"):
            await rebuild.during(asyncio.sleep(60))

    run(story())


def test_who_cannot_say_that_it_makes_keys_makes_none(state: MemoryTables, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> None:
        raise Transient("away")

    async def story() -> None:
        worker = Holder(state, ONE, "worker A/1")
        await worker.admitted()
        monkeypatch.setattr(worker, "hold", away)
        monkeypatch.setattr(patient_secret, "BELIEVED_S", 0.05)
        assert await asyncio.wait_for(worker.watch(), 5) == service.FAILED

    run(story())
