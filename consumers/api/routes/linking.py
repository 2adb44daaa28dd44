"""For who decides of files: those that look like one person's, and what was decided, to be undone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from consumers.api import queries
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.person import person
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, MONTHS, PAGE, limit_of, months_of, without
from infra.ports import Row
from schemas.likeness import SHARDS
from schemas.roles import Permission

READ_MAX = 2000
"""Proposals of a shard that are read: decided ones stay listed, and are left out here."""

Pair = tuple[str, str]


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""

    async def link_proposals(ask: Ask) -> Answer:
        limit = limit_of(ask)
        answers = await room.views.tables.select_many([queries.link_proposals(n, READ_MAX) for n in range(SHARDS)])
        best: dict[Pair, Row] = {}
        for row in (row for rows in answers for row in rows):
            pair = (row["patient_key"], row["other_key"])
            if pair not in best or row["score"] > best[pair]["score"]:
                best[pair] = row
        decided = await _decided(room, best)
        found = [r for pair, r in best.items() if pair not in decided]
        found.sort(key=lambda r: (-r["score"], r["patient_key"], r["other_key"]))
        who = await _people(room, [k for r in found[:limit] for k in (r["patient_key"], r["other_key"])])
        shown = [
            {
                "score": r["score"],
                "why": list(r["why"]),
                "one": who[r["patient_key"]],
                "other": who[r["other_key"]],
            }
            for r in found[:limit]
        ]
        return _answer({"proposals": shown, "more": len(found) > limit}, who)

    async def link_decisions(ask: Ask) -> Answer:
        limit = limit_of(ask)
        rows: list[Row] = []
        for month in months_of(ask):
            rows += await room.views.tables.select(queries.link_decisions(month, limit - len(rows)))
            if len(rows) >= limit:
                break
        pairs = {(r["patient_key"], r["other_key"]): r for r in rows}
        holding = await _decided(room, pairs)
        who = await _people(room, [k for pair in pairs for k in pair])
        seen: set[Pair] = set()
        shown = []
        for row in rows:
            pair = (row["patient_key"], row["other_key"])
            # The last word on two files may be taken back, and no word before it.
            holds = pair in holding and pair not in seen and row["type"] != "unlinked"
            seen.add(pair)
            people = {"one": who[pair[0]], "other": who[pair[1]]}
            shown.append(without(row, "month", "patient_key", "other_key") | people | {"holds": holds})
        return _answer({"decisions": shown}, who)

    guard.get(
        "/link-proposals",
        link_proposals,
        action="read-proposals",
        summary="Files that look like one person's and of which nobody has decided, the likest first",
        parameters=PAGE,
        permission=Permission.CONFLICTS_READ,
        tag="Patients",
        source="sijil.patients",
    )
    guard.get(
        "/link-decisions",
        link_decisions,
        action="read-proposals",
        summary="Files that were joined, parted and kept apart, newest first; `holds`: it can be undone",
        parameters=PAGE | MONTHS,
        permission=Permission.CONFLICTS_READ,
        tag="Patients",
        source="sijil.patients",
    )


async def _decided(room: Room, pairs: Mapping[Pair, Row]) -> set[Pair]:
    """Of pairs those of which something holds, whichever stands first."""
    keys = list(dict.fromkeys(one for one, _ in pairs))
    answers = await room.views.tables.select_many([queries.links_of(k) for k in keys]) if keys else []
    held = {(k, r["other_key"]) for k, rows in zip(keys, answers, strict=True) for r in rows if r["holds"]}
    return held & pairs.keys()


async def _people(room: Room, keys: list[str]) -> dict[str, dict[str, Any]]:
    """Who each key is, as far as it is known."""
    wanted = list(dict.fromkeys(keys))
    rows = await asyncio.gather(*(person(room.views.tables, k) for k in wanted))
    return {k: without(r) if r is not None else {"patient_key": k} for k, r in zip(wanted, rows, strict=True)}


def _answer(document: dict[str, Any], who: Mapping[str, Mapping[str, Any]]) -> Answer:
    shown = [(uid, key) for key, r in who.items() if (uid := r.get("last_study_uid"))]
    return Answer(about=OfSearch({}, shown), content=msgspec.json.encode(document), media_type=JSON)
