"""The access trail: what is durable before an answer leaves, and what is counted behind it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from consumers.api import audit as audit_module
from consumers.api.access import KNOWN, PURPOSES, refusal
from consumers.api.audit import SHOWN_INLINE_MAX, Audit
from infra.http_caller import checked_purpose
from infra.memory import MemoryObjects
from schemas.caller import Caller
from schemas.errors import Invalid, Overloaded, Transient
from schemas.events import AccessDenied, AccessEmergency, AccessGranted, AccessUsed, Shown
from schemas.roles import DEFAULT_PURPOSE, Permission, Role, Scope, scope_of
from tests.unit.consumers.archive import Journal

WHO = Caller("http:192.0.2.7", Role.LOCAL, "TREAT", address="192.0.2.7")
SECRET = bytes(32)


@asynccontextmanager
async def audited(journal: Journal, *, window_s: float = 60.0) -> AsyncIterator[Audit]:
    audit = Audit(journal, MemoryObjects(), bucket="sijil-documents", search_secret=SECRET, window_s=window_s)
    yield audit
    await audit.stop()


def run(call: Coroutine[Any, Any, None]) -> None:
    asyncio.run(call)


def test_one_grant_covers_the_reads_of_a_window() -> None:
    journal = Journal()

    async def read() -> None:
        async with audited(journal) as audit:
            for size in (10, 20, 30):
                window = await audit.grant(WHO, "1.2.3", "k1:" + "x" * 43, "retrieve")
                window.use()
                window.bytes += size

    run(read())
    (granted,), (used,) = journal.events(AccessGranted), journal.events(AccessUsed)
    assert (granted.study_uid, granted.action, granted.window_s) == ("1.2.3", "retrieve", 60)
    assert granted.shown == [Shown(study_uid="1.2.3", patient_key="k1:" + "x" * 43)]
    assert (used.access_id, used.uses, used.bytes) == (granted.access_id, 3, 60)
    for event in (granted, used):
        assert (event.actor, event.role, event.purpose) == ("http:192.0.2.7", "local", "TREAT")
        assert (event.via, event.address) == ("http", "192.0.2.7")
    assert used.patient_key == "k1:" + "x" * 43
    assert [p.id for p in journal.published] != [granted.access_id] * 2


def test_another_study_purpose_actor_place_or_action_is_another_grant() -> None:
    journal = Journal()

    async def read() -> None:
        async with audited(journal) as audit:
            for who in (
                WHO,
                replace(WHO, actor="http:192.0.2.8"),
                replace(WHO, purpose="ETREAT"),
                replace(WHO, address="192.0.2.9"),
            ):
                for study in ("1.2.3", "1.2.4"):
                    for action in ("retrieve", "read-metadata"):
                        await audit.grant(who, study, "", action)

    run(read())
    assert len(journal.events(AccessGranted)) == 16
    assert journal.events(AccessUsed) == []


def test_a_window_closes_and_the_next_read_is_a_new_grant() -> None:
    journal = Journal()

    async def read() -> None:
        async with audited(journal, window_s=0.02) as audit:
            (await audit.grant(WHO, "1.2.3", "", "retrieve")).use()
            await asyncio.sleep(0.03)
            audit.sweep()
            assert len(journal.events(AccessUsed)) == 1
            (await audit.grant(WHO, "1.2.3", "", "retrieve")).use()

    run(read())
    assert len(journal.events(AccessGranted)) == len(journal.events(AccessUsed)) == 2


def test_a_window_waits_for_its_streams() -> None:
    journal = Journal()

    async def read() -> None:
        async with audited(journal, window_s=0.01) as audit:
            window = await audit.grant(WHO, "1.2.3", "", "retrieve")
            window.use()
            window.began()
            await asyncio.sleep(0.02)
            audit.sweep()
            assert journal.events(AccessUsed) == []
            window.bytes += 5
            window.ended(False)
            audit.sweep()

    run(read())
    (used,) = journal.events(AccessUsed)
    assert (used.bytes, used.cut_short) == (5, 1)


def test_nothing_is_granted_before_it_is_kept() -> None:
    journal = Journal()
    journal.keeps = journal.acknowledges = False

    async def read() -> None:
        async with audited(journal) as audit:
            first = asyncio.create_task(audit.grant(WHO, "1.2.3", "", "retrieve"))
            second = asyncio.create_task(audit.grant(WHO, "1.2.3", "", "retrieve"))
            await asyncio.sleep(0.05)
            assert not first.done()
            assert not second.done()
            (event,) = journal.published
            event.kept.set_result(None)
            assert await first is await second

    with patch.object(audit_module, "ACKNOWLEDGE_WAIT_S", 0.1):
        run(read())


def test_while_kafka_is_away_the_journal_is_enough_and_is_not_waited_behind() -> None:
    journal = Journal()
    journal.acknowledges = False

    async def read() -> None:
        loop = asyncio.get_running_loop()
        async with audited(journal) as audit:
            await audit.grant(WHO, "1.2.3", "", "retrieve")
            before = loop.time()
            for n in range(20):
                await audit.grant(WHO, f"1.2.{n + 4}", "", "retrieve")
            assert loop.time() - before < 0.1

    with patch.object(audit_module, "ACKNOWLEDGE_WAIT_S", 0.05):
        run(read())


def test_a_journal_that_fails_refuses_all_who_wait() -> None:
    journal = Journal()
    journal.keeps = journal.acknowledges = False

    async def read() -> None:
        async with audited(journal) as audit:
            both = [asyncio.create_task(audit.grant(WHO, "1.2.3", "", "retrieve")) for _ in range(2)]
            await asyncio.sleep(0.01)
            journal.published[0].kept.set_exception(OSError("no space"))
            journal.published[0].acknowledged.set_exception(OSError("no space"))
            for found in await asyncio.gather(*both, return_exceptions=True):
                assert isinstance(found, Transient)
            journal.keeps = journal.acknowledges = True
            await audit.grant(WHO, "1.2.3", "", "retrieve")

    run(read())
    assert journal.events(AccessUsed) == []


def test_a_full_chain_refuses_and_loses_no_count() -> None:
    journal = Journal()

    async def read() -> None:
        async with audited(journal, window_s=0.01) as audit:
            (await audit.grant(WHO, "1.2.3", "", "retrieve")).use()
            journal.full = True
            with pytest.raises(Overloaded):
                await audit.grant(WHO, "1.2.4", "", "retrieve")
            with pytest.raises(Overloaded):
                await audit.search(WHO, "search", {}, [])
            await asyncio.sleep(0.02)
            audit.sweep()
            assert journal.events(AccessUsed) == []
            journal.full = False
            audit.sweep()

    run(read())
    assert len(journal.events(AccessUsed)) == 1


def test_windows_are_bounded() -> None:
    journal = Journal()

    async def read() -> None:
        async with audited(journal) as audit:
            for n in range(10):
                (await audit.grant(WHO, f"1.2.{n}", "", "retrieve")).use()
            audit.sweep()
            assert len(journal.events(AccessUsed)) == 7

    with patch.object(audit_module, "WINDOWS_MAX", 3):
        run(read())
    assert len(journal.events(AccessUsed)) == 10


# ------------------------------------------------------------------------------------------------ searches


def test_a_search_says_names_and_hmacs_never_values() -> None:
    journal = Journal()

    async def search() -> None:
        async with audited(journal) as audit:
            for value in ("CANARY^NAME", "CANARY^NAME", "OTHER"):
                await audit.search(WHO, "search", {"PatientName": (value,)}, [("1.2.3", ""), ("1.2.3", "")])

    run(search())
    one, two, other = journal.events(AccessGranted)
    assert one.search == two.search != other.search
    assert list(one.search) == ["PatientName"]
    assert len(one.search["PatientName"][0]) == 43
    assert one.shown == [Shown(study_uid="1.2.3")]
    assert one.access_id != two.access_id
    assert "CANARY" not in repr(journal.published)


def test_a_long_list_goes_to_s3_before_the_event() -> None:
    journal, objects = Journal(), MemoryObjects()
    pairs = [(f"1.2.{n}", "") for n in range(SHOWN_INLINE_MAX + 1)]

    async def search() -> None:
        audit = Audit(journal, objects, bucket="sijil-documents", search_secret=SECRET, window_s=60)
        await audit.search(WHO, "search", {}, pairs)

    run(search())
    (event,) = journal.events(AccessGranted)
    assert (event.shown, event.shown_count) == ([], len(pairs))
    assert event.shown_list_sha256 == hashlib.sha256(objects.get("sijil-documents", event.shown_list)).hexdigest()
    listed = msgspec.json.decode(objects.get("sijil-documents", event.shown_list), type=list[Shown])
    assert [s.study_uid for s in listed] == [p[0] for p in pairs]


def test_without_s3_a_long_list_does_not_leave() -> None:
    journal, objects = Journal(), MemoryObjects()
    objects.away = True

    async def search() -> None:
        audit = Audit(journal, objects, bucket="sijil-documents", search_secret=SECRET, window_s=60)
        with pytest.raises(Transient):
            await audit.search(WHO, "search", {}, [(f"1.2.{n}", "") for n in range(200)])

    run(search())
    assert journal.published == []


def test_an_emergency_is_an_event_and_its_words_are_in_s3_alone() -> None:
    journal, objects = Journal(), MemoryObjects()
    until = datetime(2025, 3, 1, 9, tzinfo=UTC)

    async def ask() -> None:
        audit = Audit(journal, objects, bucket="sijil-documents", search_secret=SECRET, window_s=60)
        await audit.emergency(WHO, "1.2.3", "k1:" + "x" * 43, "no-relation", "CANARY fell off a ladder", until=until)

    run(ask())
    (event,) = journal.events(AccessEmergency)
    assert (event.study_uid, event.reason, event.until) == ("1.2.3", "no-relation", "2025-03-01T09:00:00.000000Z")
    body = objects.get(event.bucket, event.document_key)
    assert msgspec.json.decode(body)["words"] == "CANARY fell off a ladder"
    assert (event.document_size, event.document_sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert "CANARY" not in repr(journal.published)


def test_without_s3_or_a_journal_nobody_is_let_in() -> None:
    for fault in ("s3", "journal"):
        journal, objects = Journal(), MemoryObjects()
        objects.away, journal.full = fault == "s3", fault == "journal"

        async def ask(journal: Journal = journal, objects: MemoryObjects = objects) -> None:
            audit = Audit(journal, objects, bucket="sijil-documents", search_secret=SECRET, window_s=60)
            with pytest.raises(Transient):
                await audit.emergency(WHO, "1.2.3", "", "no-relation", "x", until=datetime(2025, 3, 1, tzinfo=UTC))

        run(ask())
        assert journal.published == []


def test_the_api_does_not_start_without_its_secret() -> None:
    with pytest.raises(Invalid):
        Audit(Journal(), MemoryObjects(), bucket="b", search_secret=b"short", window_s=60)


# ------------------------------------------------------------------------------------------------ the table


def asking(role: Role, purpose: str) -> Caller:
    return Caller("http:x", role, purpose)


def test_every_role_has_a_purpose_of_its_own_and_is_refused_others_with_a_reason() -> None:
    for role in Role:
        assert DEFAULT_PURPOSE[role] in PURPOSES[role]
        for permission in Permission:
            for purpose in KNOWN:
                reason = refusal(asking(role, purpose), permission)
                may = scope_of(role, permission) is not Scope.NONE and purpose in PURPOSES[role]
                assert (reason == "") is may
                AccessDenied(
                    access_id="0" * 8,
                    actor="a",
                    role=role,
                    purpose=purpose,
                    action="x",
                    occurred="x",
                    reason=reason or "x",
                )


def test_what_is_not_in_the_tables_is_refused() -> None:
    assert refusal(asking(Role.LOCAL, "NOSUCH"), Permission.STUDY_READ) == "purpose-unknown"
    assert refusal(asking(Role.LOCAL, "HMARKT"), Permission.STUDY_READ) == "marketing"
    assert refusal(asking(Role.OFFICER, "TREAT"), Permission.ACCESS_READ_ANY) == "purpose-role"
    assert refusal(asking(Role.OPERATOR, "TREAT"), Permission.STUDY_READ) == "role"


def test_purposes() -> None:
    assert checked_purpose(" ETREAT ") == "ETREAT"
    for text in ("", "treat", "T", "TREAT;DROP", "X" * 17):
        with pytest.raises(Invalid):
            checked_purpose(text)
