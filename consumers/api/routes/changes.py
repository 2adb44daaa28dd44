"""The change feed: `GET /changes`, and the same as Server-Sent Events (WHATWG HTML §9.2) at `/changes/events`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime

import msgspec
from prometheus_client import Gauge

from consumers.api.changes import Change, Cursor, decode
from consumers.api.feed import Feed
from consumers.api.guard import Answer, Ask, Chunk, Guard, Handler, OfSearch, Portion
from consumers.api.room import Room
from infra import clock
from schemas.errors import Invalid, Overloaded, Transient
from schemas.roles import Permission

TAG = "Changes"
LIMIT, LIMIT_MAX = 100, 1000
NOW = "now"
STREAMS_MAX = 200
PORTION = 100
"""Changes of a stream that are read, and in memory for one client, at once."""
LOOK_S = 0.3
HEARTBEAT_S = 15.0
"""A comment is sent after so long without a change: proxies and clients notice a dead connection by its absence."""

STREAMS = Gauge("sijil_change_streams", "Clients that follow the change feed")

_SINCE = "a cursor of an earlier answer; `now`: only what comes; missing: from the beginning of the log"


def add(guard: Guard, room: Room, feed: Feed, stopping: Callable[[], bool]) -> None:
    """Register the routes. `stopping` says that the process ends, and streams with it."""
    guard.get(
        "/changes",
        _page(room, feed),
        permission=Permission.CHANGES_READ,
        action="read-changes",
        summary="What arrived, was completed, was reported, in order",
        description="`next` is where to go on; nothing between two calls is skipped. UIDs only.",
        tag=TAG,
        parameters={"since": _SINCE, "limit": f"most changes of one answer, at most {LIMIT_MAX}"},
    )
    guard.get(
        "/changes/events",
        _events(room, feed, stopping),
        permission=Permission.CHANGES_READ,
        action="follow-changes",
        summary="The same as Server-Sent Events",
        description="Begins behind `Last-Event-ID`, else `since`, else now.",
        tag=TAG,
        media_types=("text/event-stream",),
        parameters={"since": _SINCE},
    )


def _page(room: Room, feed: Feed) -> Handler:
    async def changes(ask: Ask) -> Answer:
        since = ask.option("since")
        cursor = await feed.head() if since == NOW else decode(since)
        page = await feed.page(cursor, _limit(ask.option("limit")))
        body = {"changes": [_said(c) for c in page.changes], "next": page.next.encode(), "more": page.more}
        shown = await _shown(room, page.changes)
        return Answer(
            about=OfSearch({"since": [since]}, shown), content=msgspec.json.encode(body), media_type="application/json"
        )

    return changes


def _events(room: Room, feed: Feed, stopping: Callable[[], bool]) -> Handler:
    following = 0

    async def events(ask: Ask) -> Answer:
        since = ask.header("last-event-id") or ask.option("since") or NOW
        cursor = await feed.head() if since == NOW else decode(since)
        if following >= STREAMS_MAX:
            raise Overloaded("too many clients follow the changes", 30.0)
        return Answer(
            about=OfSearch({"since": [since]}, ()),
            content=stream(cursor),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def stream(cursor: Cursor) -> AsyncGenerator[Chunk | Portion, None]:
        nonlocal following
        following += 1
        STREAMS.set(following)
        try:
            yield b"retry: 3000\nid: %b\n\n" % cursor.encode().encode()
            told = clock.monotonic()
            while not stopping():
                try:
                    moved = await feed.moved(cursor)
                    page = await feed.page(cursor, PORTION) if moved else None
                except Transient:
                    page = None  # the log is away: the client stays and hears of it by and by
                if page is not None:
                    if page.changes:
                        text = "".join(_event(c) for c in page.changes)
                        yield Portion(await _shown(room, page.changes), text.encode())
                        told = clock.monotonic()
                    cursor = page.next
                    continue
                if clock.monotonic() - told > HEARTBEAT_S:
                    yield b": %b\n\n" % cursor.encode().encode()
                    told = clock.monotonic()
                await asyncio.sleep(LOOK_S)
        finally:
            following -= 1
            STREAMS.set(following)

    return events


async def _shown(room: Room, changes: Sequence[Change]) -> list[tuple[str, str]]:
    """The studies with their patients, for the access event."""
    return await room.owners(list(dict.fromkeys(s for c in changes for s in c.studies)))


def _said(change: Change) -> dict[str, object]:
    moment = datetime.fromtimestamp(change.time_ms / 1000, UTC)
    return {"type": change.type, "time": clock.rfc3339(moment), "study_uids": change.studies, **change.more}


def _event(change: Change) -> str:
    data = msgspec.json.encode(_said(change)).decode()
    return f"id: {change.cursor.encode()}\nevent: {change.type}\ndata: {data}\n\n"


def _limit(text: str) -> int:
    if not text:
        return LIMIT
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LIMIT_MAX):
        raise Invalid("limit", f"limit is a whole number from 1 to {LIMIT_MAX}")
    return int(text)
