"""FHIR subscriptions: asked for at the door, kept by the delivery, notified at a real receiver on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from aiohttp import web
from click.testing import CliRunner

from consumers.delivery import feed as feed_module
from consumers.delivery import queue as queue_module
from consumers.delivery.deliverer import Deliverer
from consumers.delivery.destination import Destination
from consumers.delivery.feed import Ends, Feed
from consumers.delivery.outbox import Outbox
from consumers.delivery.positions import Positions
from consumers.delivery.queue import Queue
from consumers.delivery.subscriptions import command as command_module
from consumers.delivery.subscriptions import keeper as keeper_module
from consumers.delivery.subscriptions import subscriber as subscriber_module
from consumers.delivery.subscriptions.endpoint import approved, checked
from consumers.delivery.subscriptions.keeper import Keeper
from consumers.delivery.subscriptions.receiver import RestHook
from consumers.delivery.subscriptions.seal import Seal
from consumers.delivery.subscriptions.store import Progress, Store, Subscription, status
from consumers.fhir.subscription import CONTENT, HEARTBEAT, IG, REPORT_ISSUED, STUDY_COMPLETE, kept, read
from infra import clock
from schemas.caller import Caller
from schemas.errors import Invalid
from schemas.events import (
    EndpointApproved,
    EndpointWithdrawn,
    Event,
    ReportDelivered,
    ReportDeliveryFailed,
    StudyCompleted,
    StudyDelivered,
)
from schemas.identity import derived_id
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import STATE_KEYSPACE
from tests.unit.consumers.archive import MemoryArchive
from tests.unit.consumers.delivery.around import STUDY, World, issued
from tests.unit.consumers.test_scope import As

CREDENTIALS = "Bearer of-the-subscriber"
BASE = "http://sijil.test/fhir"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds."""
    monkeypatch.setattr(feed_module, "POLL_S", 0.005)
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.01)
    for name in ("RETRY_FIRST_S", "WAIT_FIRST_S", "CIRCUIT_FIRST_S"):
        monkeypatch.setattr(queue_module, name, 0.004)
    for name in ("RETRY_MOST_S", "WAIT_MOST_S", "CIRCUIT_MOST_S"):
        monkeypatch.setattr(queue_module, name, 0.02)
    monkeypatch.setattr(subscriber_module, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(subscriber_module, "RETRY_MOST_S", 0.02)


class Hook:
    """A receiver: what came, in its order, and what it answers."""

    def __init__(self) -> None:
        self.answer = 200
        self.came: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.elsewhere = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [b for b in self.came if told(b)["type"] == kind]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            yield
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.came.append(await request.json())
        self.headers.append(dict(request.headers))
        return web.Response(status=self.answer, headers={"Location": "/elsewhere"})

    async def _elsewhere(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()


def told(bundle: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a bundle's SubscriptionStatus, the event's parts among them."""
    found: dict[str, Any] = {}
    resource = bundle["entry"][0]["resource"]
    assert resource["resourceType"] == "Parameters"
    for parameter in resource["parameter"]:
        for one in parameter.get("part", [parameter]):
            (value,) = [v for n, v in one.items() if n != "name"]
            found[one["name"]] = value.get("reference", value) if isinstance(value, dict) else value
    return found


def wanted(hook: Hook, topic: str = REPORT_ISSUED, **more: Any) -> dict[str, Any]:
    """A Subscription as a client sends it."""
    channel = {
        "type": "rest-hook",
        "endpoint": hook.url,
        "payload": "application/fhir+json",
        "_payload": {"extension": [{"url": CONTENT, "valueCode": "id-only"}]},
        "header": [f"Authorization: {CREDENTIALS}"],
    }
    sent = {"resourceType": "Subscription", "status": "requested", "reason": "reports", "criteria": topic}
    return {**sent, "channel": channel, **more}


class Place:
    """An archive whose door and whose delivery share their tables."""

    def __init__(self) -> None:
        self.archive = MemoryArchive()
        self.archive.settings = replace(
            self.archive.settings, subscription_secret="ab" * 32, http_public_url="http://sijil.test"
        )
        self.world = World()
        self.world.state = self.archive.tables.with_keyspace(STATE_KEYSPACE)
        self.store = Store(self.world.state)
        self.who = As(self.caller(Role.EHR))

    @staticmethod
    def caller(role: Role, name: str = "one") -> Caller:
        return Caller(f"service:{name}", role, DEFAULT_PURPOSE[role])

    def begin(self, destination: Destination, since_ms: int) -> Deliverer:
        outbox, queue = Outbox(self.world.state, destination.name), Queue(lambda: 0.0)
        log, views = self.world.log, self.world.views
        feed = Feed(log, Ends(log), destination, outbox, queue, since_ms=since_ms)
        return Deliverer(destination, outbox, queue, feed, Positions(lambda: views), self.world.chain)

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[Keeper]:
        keeper = Keeper(self.world.state, Seal(self.archive.settings), RestHook, self.begin, BASE)
        task = asyncio.create_task(keeper.run())
        try:
            yield keeper
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def door(self) -> AsyncIterator[httpx.AsyncClient]:
        async with self.archive.client(authenticator=self.who) as client:
            yield client

    async def approve(self, *hooks: Hook) -> None:
        for hook in hooks:
            await self.store.approve(checked(hook.url, prefix=True), "person:1")

    async def known(self, id: str) -> tuple[str, str]:
        """Status and what is wrong, as the door would say."""
        of = await self.store.one(id)
        assert of is not None
        (progress,) = await self.store.progress([id])
        return status(of, progress, await self.store.prefixes(), clock.now())

    async def stands(self, id: str, *expected: str) -> None:
        """Wait until its status is that."""
        async with asyncio.timeout(5):
            while (await self.known(id))[: len(expected)] != expected:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.005)

    async def has_all(self, id: str) -> None:
        """Wait until nothing is owed to it."""
        async with asyncio.timeout(5):
            while any(r["destination"] == f"subscription-{id}" for r in await self.world.open_rows()):  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.005)


async def post(client: httpx.AsyncClient, sent: dict[str, Any], expected: int = 201) -> dict[str, Any]:
    answer = await client.post(
        "/fhir/Subscription", content=json.dumps(sent), headers={"Content-Type": "application/fhir+json"}
    )
    assert answer.status_code == expected, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def put(client: httpx.AsyncClient, id: str, sent: dict[str, Any], **headers: str) -> httpx.Response:
    headers = {"Content-Type": "application/fhir+json", **headers}
    return await client.put(f"/fhir/Subscription/{id}", content=json.dumps(sent), headers=headers)


def completed(study: str = STUDY, revision: int = 1) -> Event:
    moment = "2026-11-23T08:00:00.000000Z"
    return StudyCompleted(
        study_uid=study, basis="quiet", revision=revision, as_of_partition=0, as_of_offset=revision - 1, packs=1,
        series=1, instances=1, bytes=1, first_arrival=moment, last_arrival=moment,
    )  # fmt: skip


def test_from_the_request_to_numbered_notifications() -> None:
    async def scenario() -> None:
        place, hook, studies = Place(), Hook(), Hook()
        async with hook.listening(), studies.listening(), place.door() as client:
            await place.approve(hook, studies)
            await place.world.happens(issued("before"))
            made = await post(client, wanted(hook))
            of_studies = await post(client, wanted(studies, STUDY_COMPLETE))
            assert (made["status"], made["criteria"]) == ("requested", REPORT_ISSUED)
            assert made["meta"]["profile"] == [IG + "backport-subscription"]
            async with place.delivering():
                await place.stands(made["id"], "active")
                (shaken,) = hook.came
                assert (told(shaken)["type"], told(shaken)["status"]) == ("handshake", "requested")
                assert len(shaken["entry"]) == 1
                await place.world.happens(issued(1), issued(1, 2), issued(2), completed())
                await until(lambda: len(hook.of("event-notification")) == 3)
                await until(lambda: len(studies.of("event-notification")) == 1)
                await until(lambda: len(place.world.chain.events) == 4)
            events = hook.of("event-notification")
            assert [told(e)["event-number"] for e in events] == ["1", "2", "3"], "from its beginning, in their order"
            assert [told(e)["events-since-subscription-start"] for e in events] == ["1", "2", "3"]
            first, other = (f"{BASE}/DiagnosticReport/{derived_id('report', n)}" for n in (1, 2))
            verbs = [(told(e)["focus"], e["entry"][1]["request"]["method"]) for e in events]
            assert [v for v in verbs if v[0] == first] == [(first, "POST"), (first, "PUT")], "its versions in order"
            assert [v for v in verbs if v[0] != first] == [(other, "POST")]
            for event in events:
                assert (event["type"], told(event)["status"]) == ("history", "active")
                assert told(event)["subscription"] == f"{BASE}/Subscription/{made['id']}"
                head, focus = event["entry"]
                assert set(focus) == {"fullUrl", "request", "response"}, "id-only: no resource goes along"
                assert focus["fullUrl"] == told(event)["focus"]
                assert head["resource"]["meta"]["profile"] == [IG + "backport-subscription-status-r4"]
            assert {h["Authorization"] for h in hook.headers} == {CREDENTIALS}
            (study,) = studies.of("event-notification")
            assert told(study)["focus"] == f"{BASE}/ImagingStudy/{STUDY}"
            delivered = [e for _, e in place.world.chain.events]
            assert {e.destination for e in delivered if isinstance(e, ReportDelivered)} == {
                f"subscription-{made['id']}"
            }
            assert [e.study_uid for e in delivered if isinstance(e, StudyDelivered)] == [STUDY]
            answer = (await client.get(f"/fhir/Subscription/{made['id']}/$status")).json()
            assert (told(answer)["type"], told(answer)["status"]) == ("query-status", "active")
            assert told(answer)["events-since-subscription-start"] == "3"
            listed = (await client.get("/fhir/Subscription?status=active&criteria=" + STUDY_COMPLETE)).json()
            assert [e["resource"]["id"] for e in listed["entry"]] == [of_studies["id"]]

    asyncio.run(scenario())


def test_a_receiver_that_is_down_gets_all_when_it_is_back_and_holds_up_no_other() -> None:
    async def scenario() -> None:
        place, down, up = Place(), Hook(), Hook()
        async with down.listening(), up.listening(), place.door() as client:
            await place.approve(down, up)
            bad, good = await post(client, wanted(down)), await post(client, wanted(up))
            async with place.delivering():
                await place.stands(bad["id"], "active")
                await place.stands(good["id"], "active")
                down.answer = 503
                await place.world.happens(*(issued(n) for n in range(5)))
                await until(lambda: len(up.of("event-notification")) == 5)
                await place.has_all(good["id"])
                await place.stands(bad["id"], "error", "http-503")
            assert {told(e)["event-number"] for e in down.of("event-notification")} == {"1"}
            shown = (await client.get(f"/fhir/Subscription/{bad['id']}")).json()
            assert (shown["status"], shown["error"]) == ("error", "http-503")
            place.who.who = place.caller(Role.OPERATOR, "operator")
            owed = (await client.get("/deliveries?destination=subscription-" + bad["id"])).json()["deliveries"]
            assert {r["report_id"] for r in owed} == {derived_id("report", n) for n in range(5)}
            again = f"/deliveries/subscription-{bad['id']}"
            assert (await client.post(again, json={"report_id": derived_id("report", 1)})).status_code == 400
            assert (await client.post(again, json={})).status_code == 202
            place.who.who = place.caller(Role.EHR)
        tried = len(down.came)
        async with down.listening(), place.door() as client:
            down.answer = 202
            async with place.delivering():  # another process takes it up
                await until(lambda: len({e["id"] for e in down.of("event-notification")}) == 5)
                await place.stands(bad["id"], "active")
            numbers = [told(e)["event-number"] for e in down.came[tried:]]
            assert numbers == ["1", "2", "3", "4", "5"], "each once, by the numbers they had"
            assert {told(e)["focus"] for e in down.came[1 : tried + 1]} == {told(down.came[tried])["focus"]}
            failed = [e for _, e in place.world.chain.events if isinstance(e, ReportDeliveryFailed)]
            assert {e.reason for e in failed} == {"http-503"}
            assert await place.world.open_rows() == []

    asyncio.run(scenario())


def test_a_handshake_is_tried_until_it_is_answered_and_redirects_are_not_followed() -> None:
    async def scenario() -> None:
        place, hook = Place(), Hook()
        hook.answer = 307
        async with hook.listening(), place.door() as client:
            await place.approve(hook)
            made = await post(client, wanted(hook))
            async with place.delivering():
                await place.stands(made["id"], "error", "redirect-not-followed")
                await place.world.happens(issued(1))
                await until(lambda: len(hook.came) > 2)
                assert hook.of("event-notification") == [], "nothing before the handshake"
                hook.answer = 200
                await until(lambda: len(hook.of("event-notification")) == 1)
                await place.stands(made["id"], "active")
        assert hook.elsewhere == 0
        assert place.world.chain.events[0][1].TYPE == ReportDelivered.TYPE, "what waits is no failed attempt"

    asyncio.run(scenario())


def test_heartbeats_come_when_nothing_else_does() -> None:
    async def scenario() -> None:
        place, hook = Place(), Hook()
        async with hook.listening(), place.door() as client:
            await place.approve(hook)
            sent = wanted(hook)
            sent["channel"]["extension"] = [{"url": HEARTBEAT, "valueUnsignedInt": 60}]
            made = await post(client, sent)
            assert made["channel"]["extension"][0] == {"url": HEARTBEAT, "valueUnsignedInt": 60}
            async with place.delivering():
                await place.stands(made["id"], "active")
                await place.world.happens(issued(1))
                await until(lambda: len(hook.of("event-notification")) == 1)
                await asyncio.sleep(0.05)
                assert hook.of("heartbeat") == [], "not yet due"
            (progress,) = await place.store.progress([made["id"]])
            assert progress.sent is not None
            await place.store.note(made["id"], replace(progress, sent=progress.sent - timedelta(seconds=61)))
            async with place.delivering():
                await until(lambda: len(hook.of("heartbeat")) == 1)
                await asyncio.sleep(0.05)
            (beat,) = hook.of("heartbeat")
            assert (told(beat)["status"], told(beat)["events-since-subscription-start"]) == ("active", "1")
            assert len(beat["entry"]) == 1

    asyncio.run(scenario())


def test_only_endpoints_that_an_administrator_approved() -> None:
    async def scenario() -> None:
        place, hook = Place(), Hook()
        async with hook.listening(), place.door() as client:
            refused = await post(client, wanted(hook), 400)
            (issue,) = refused["issue"]
            assert refused["resourceType"] == "OperationOutcome"
            assert issue["details"]["coding"][0]["code"] == "endpoint-not-approved"
            assert "/subscription-endpoints" in issue["diagnostics"]
            prefix = {"prefix": f"http://127.0.0.1:{hook.port}/"}
            assert (await client.post("/subscription-endpoints", json=prefix)).status_code == 403, "not by an ehr"
            place.who.who = place.caller(Role.ADMINISTRATOR, "admin")
            bad = await client.post("/subscription-endpoints", json={"prefix": "ftp://127.0.0.1/"})
            assert bad.status_code == 400
            assert place.archive.journal.events(EndpointApproved) == [], "what is refused is no decision"
            made = await client.post("/subscription-endpoints", json=prefix)
            again = await client.post("/subscription-endpoints", json=prefix)
            assert (made.status_code, again.status_code) == (201, 201)
            (said,) = place.archive.journal.events(EndpointApproved)
            assert (said.prefix, said.actor) == (prefix["prefix"][:-1], "service:admin")
            assert made.json() == {"prefix": prefix["prefix"][:-1], "approved_by": "service:admin"}
            listed = (await client.get("/subscription-endpoints")).json()["endpoints"]
            assert [e["prefix"] for e in listed] == [prefix["prefix"][:-1]]
            place.who.who = place.caller(Role.EHR)
            id = (await post(client, wanted(hook)))["id"]
            async with place.delivering():
                await place.stands(id, "active")
                place.who.who = place.caller(Role.ADMINISTRATOR, "admin")
                gone = await client.delete("/subscription-endpoints", params=prefix)
                assert gone.status_code == 204
                assert (await client.delete("/subscription-endpoints", params=prefix)).status_code == 404
                (taken_back,) = place.archive.journal.events(EndpointWithdrawn)
                assert (taken_back.prefix, taken_back.actor) == (said.prefix, "service:admin")
                place.archive.journal.full = True
                assert (await client.post("/subscription-endpoints", json=prefix)).status_code == 503
                assert (await client.get("/subscription-endpoints")).json()["endpoints"] == []
                place.archive.journal.full = False
                await place.stands(id, "error", "endpoint-not-approved")
                await asyncio.sleep(0.05)
                await place.world.happens(issued(1))
                await asyncio.sleep(0.05)
                assert hook.of("event-notification") == []
                await client.post("/subscription-endpoints", json=prefix)
                await until(lambda: len(hook.of("event-notification")) == 1)

    asyncio.run(scenario())


def test_a_subscription_is_its_owners_and_its_headers_nobodys() -> None:
    async def scenario() -> None:
        place, hook = Place(), Hook()
        async with hook.listening(), place.door() as client:
            await place.approve(hook)
            made = await post(client, wanted(hook))
            address = f"/fhir/Subscription/{made['id']}"
            assert made["channel"]["header"] == ["Authorization: ***"]
            assert CREDENTIALS not in str([row async for row in place.world.state.scan("subscriptions")])
            place.who.who = place.caller(Role.EHR, "two")
            assert (await client.get(address)).status_code == 404
            assert (await client.get(address + "/$status")).status_code == 404
            assert (await put(client, made["id"], made)).status_code == 404
            assert (await client.delete(address)).status_code == 404
            assert (await client.get("/fhir/Subscription")).json()["total"] == 0
            place.who.who = place.caller(Role.ADMINISTRATOR, "admin")
            assert (await client.get("/fhir/Subscription")).json()["total"] == 1
            place.who.who = place.caller(Role.DOCTOR, "three")
            assert (await client.get(address)).status_code == 403
            place.who.who = place.caller(Role.EHR)
            assert (await put(client, made["id"], made, **{"If-Match": 'W/"7"'})).status_code == 412
            changed = await put(client, made["id"], {**made, "reason": "others"}, **{"If-Match": 'W/"1"'})
            assert (changed.status_code, changed.headers["ETag"]) == (200, 'W/"2"')
            other = await put(client, made["id"], {**made, "criteria": STUDY_COMPLETE})
            assert other.json()["issue"][0]["details"]["coding"][0]["code"] == "subscription-topic"
            async with place.delivering():
                await until(lambda: len(hook.came) == 1)
                assert hook.headers[0]["Authorization"] == CREDENTIALS, "what was shown as *** is as it was"

    asyncio.run(scenario())


def test_off_is_owed_nothing_and_deleted_leaves_nothing() -> None:
    async def scenario() -> None:
        place, hook = Place(), Hook()
        async with hook.listening(), place.door() as client:
            await place.approve(hook)
            made = await post(client, wanted(hook))
            async with place.delivering() as keeper:
                await place.stands(made["id"], "active")
                hook.answer = 500
                await place.world.happens(issued(1))
                await place.stands(made["id"], "error")
                assert (await put(client, made["id"], {**made, "status": "off"})).json()["status"] == "off"
                await until(lambda: not list(keeper))
                await place.world.happens(issued(2))
                hook.answer = 200
                await asyncio.sleep(0.05)
                assert await place.world.open_rows() == []
                assert (await put(client, made["id"], made)).json()["status"] == "requested"
                await place.stands(made["id"], "active")
                await place.world.happens(issued(3))
                third = f"{BASE}/DiagnosticReport/{derived_id('report', 3)}"
                await until(lambda: told(hook.came[-1]).get("focus") == third)
                assert (await client.delete(f"/fhir/Subscription/{made['id']}")).status_code == 204
                assert (await client.get(f"/fhir/Subscription/{made['id']}")).status_code == 404
                await until(lambda: not list(keeper))
                await asyncio.sleep(0.05)
            for table in ("subscriptions", "subscription_progress", "delivery_cursors", "deliveries_open"):
                assert [row async for row in place.world.state.scan(table)] == [], table

    asyncio.run(scenario())


APPROVED = ["https://his.example/fhir", "http://10.0.0.7:8090", "https://[2001:db8::1]/x"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://his.example/fhir", True),
        ("https://his.example:443/fhir/hook?x=1", True),
        ("https://HIS.example/fhir/hook", True),
        ("http://10.0.0.7:8090/anything", True),
        ("https://[2001:db8::1]/x/y", True),
        ("http://his.example/fhir/hook", False),
        ("https://his.example/fhirs", False),
        ("https://his.example/", False),
        ("https://his.example:8443/fhir", False),
        ("https://his.example.evil.example/fhir", False),
        ("https://his.example@evil.example/fhir", False),
        ("https://user:word@his.example/fhir", False),
        ("https://his.example/fhir/../admin", False),
        ("https://his.example/fhir/%2e%2e/admin", False),
        ("https://his.example/fhir/.%2E/admin", False),
        ("https://his.example\\@evil.example/fhir", False),
        ("http://10.0.0.7:80900/", False),
        ("http://10.0.0.7", False),
        ("file:///etc/passwd", False),
        ("https://his.example/fhir\r\nX: y", False),
        ("https://his.example/fhir#x", False),
    ],
)
def test_what_is_approved_is_no_more_than_it_looks_like(url: str, expected: bool) -> None:
    assert approved(url, APPROVED) is expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"resourceType": "Patient"}, "subscription-json"),
        ({"criteria": "Patient?name=x"}, "subscription-topic"),
        ({"_criteria": {"extension": [{"url": IG + "backport-filter-criteria"}]}}, "subscription-filter"),
        ({"status": "error"}, "subscription-status"),
        ({"reason": ""}, "subscription-element"),
        ({"end": "tomorrow"}, "subscription-end"),
        ({"end": "2027-01-31T00:00:00"}, "subscription-end"),
        ({"channel": {"type": "email"}}, "subscription-channel"),
        ({"channel": {"payload": "text/plain"}}, "subscription-payload"),
        ({"channel": {"_payload": {"extension": [{"url": CONTENT, "valueCode": "empty"}]}}}, "subscription-content"),
        ({"channel": {"_payload": None}}, "subscription-content"),
        ({"channel": {"header": ["Host: other"]}}, "subscription-header"),
        ({"channel": {"header": ["X: a\r\nY: b"]}}, "subscription-header"),
        ({"channel": {"header": ["A: 1", "a: 2"]}}, "subscription-header"),
        ({"channel": {"header": "A: 1"}}, "subscription-header"),
        ({"channel": {"extension": [{"url": HEARTBEAT, "valueUnsignedInt": 1}]}}, "subscription-seconds"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    sent = wanted(Hook())
    channel = {**sent["channel"], **change.get("channel", {})}
    read(json.dumps(sent).encode())
    with pytest.raises(Invalid) as refused:
        read(json.dumps({**sent, **change, "channel": channel}).encode())
    assert refused.value.reason == reason


def test_a_hidden_header_must_be_there() -> None:
    assert kept((("A", "***"), ("B", "2")), (("a", "1"),)) == (("A", "1"), ("B", "2"))
    with pytest.raises(Invalid):
        kept((("A", "***"),), ())


def test_it_ends_by_itself() -> None:
    now = clock.now()
    of = Subscription("1", 1, "service:one", "on", REPORT_ISSUED, "https://a/b", "", "", 0, 1, now, now, now)
    assert status(of, Progress(version=1), ["https://a"], now) == ("off", "")
    later = replace(of, ends=now + timedelta(seconds=1))
    assert status(later, Progress(version=1), ["https://a"], now) == ("active", "")
    assert status(later, Progress(), ["https://a"], now) == ("requested", "")


def test_the_command_asks_the_door_as_an_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def ask(method: str, path: str, document: Any = None, *, role: Role) -> dict[str, Any]:
        asked.append((method, path, document, role))
        row = {"prefix": "https://a/b", "approved": "2026-11-23T08:00:00Z", "approved_by": "person:1"}
        return {"prefix": "https://a/b", "endpoints": [row]}

    monkeypatch.setattr(command_module, "ask", ask)
    for words in (["approve", "https://a/b/"], ["list"], ["withdraw", "https://a/b"]):
        done = CliRunner().invoke(command_module.command, words)
        assert done.exit_code == 0, done.output
        assert "https://a/b" in done.output or words[0] == "withdraw"
    assert asked == [
        ("POST", "/subscription-endpoints", {"prefix": "https://a/b/"}, Role.ADMINISTRATOR),
        ("GET", "/subscription-endpoints", None, Role.ADMINISTRATOR),
        ("DELETE", "/subscription-endpoints?prefix=https%3A%2F%2Fa%2Fb", None, Role.ADMINISTRATOR),
    ]
