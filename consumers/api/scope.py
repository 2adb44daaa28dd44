"""Scopes: what a caller's permission covers, from the facts of the read models alone.

Own site: studies that a site of theirs sent. Own patients: those whom orders and reports name them as referring or
reporting, or statements as treating, with all files that are joined to theirs. Both are widened by what was shared with
them for a time and by emergencies that they stated.
Facts are believed for FACTS_S; who is about to be refused is looked up anew, so that a statement holds at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from consumers.api import queries
from consumers.api.linked import Linked
from consumers.api.planner import ByAccession, ByReach, BySop, ByUid, Plan
from consumers.api.reach import WHOLE, Reach
from infra import clock
from infra.ports import Row, Tables
from schemas.caller import ALL_SITES, Caller
from schemas.lifecycle import ORDER_CANCELLED
from schemas.overlay import decode
from schemas.roles import Permission, Scope, scope_of

FACTS_S = 2.0
PLACES_S = 30.0
KNOWN_MAX = 50_000
EMERGENCIES_MAX = 200
RELATIONS_MAX = 5000
PATIENT_STUDIES_MAX = 200
"""Studies of a patient that are looked at for one of a site."""

WIDENED = frozenset(
    {
        Permission.STUDY_SEARCH,
        Permission.STUDY_READ,
        Permission.STUDY_SHARE,
        Permission.REPORT_READ,
        Permission.PATIENT_FILE,
    }
)
"""Reading; what changes something is not widened by a relation."""


@dataclass(frozen=True)
class Place:
    """Whose a study is and which sites sent it."""

    patient_key: str
    sites: frozenset[str]


@dataclass(frozen=True)
class _Let:
    study_uid: str
    patient_key: str
    until: datetime


class Scopes:
    """The scopes of one process."""

    def __init__(self, tables: Callable[[], Tables]) -> None:
        """`tables` raises Transient while the read models are away."""
        self._connected = tables
        self._facts: OrderedDict[str, tuple[float, Reach]] = OrderedDict()
        self._places: OrderedDict[str, tuple[float, Place]] = OrderedDict()
        self._let_in: dict[str, list[_Let]] = {}
        self.linked = Linked(tables)

    # -------------------------------------------------------------------------------------------- who

    async def reach(self, caller: Caller, permission: Permission, *, anew: bool = False) -> Reach:
        """What of the archive a permission covers for a caller. Raises Transient."""
        match scope_of(caller.role, permission):
            case Scope.WHOLE | Scope.PSEUDONYMS | Scope.AGGREGATES:
                return WHOLE
            case Scope.SELF:
                return Reach(patients=await self.linked.widened((caller.patient_key,)))
            case Scope.OWN_SITE if ALL_SITES in caller.sites:
                return WHOLE
            case Scope.OWN_SITE if permission not in WIDENED or not caller.person_id:
                return Reach(sites=caller.sites)
            case Scope.OWN_SITE:
                own = await self._relations(caller, anew=anew)
                return Reach(sites=caller.sites, patients=own.patients, studies=own.studies)
            case Scope.OWN_PATIENTS:
                return await self._relations(caller, anew=anew) if caller.person_id else Reach()
            case Scope.NONE:
                return Reach()

    async def _relations(self, caller: Caller, *, anew: bool) -> Reach:
        known = self._facts.get(caller.actor)
        if known is not None and known[0] > clock.monotonic() and not anew:
            return known[1]
        found = await self._read(caller)
        _keep(self._facts, caller.actor, (clock.monotonic() + FACTS_S, found))
        return found

    async def _read(self, caller: Caller) -> Reach:
        stated, reported, referred, emergencies = await self._tables.select_many(
            (
                queries.treating(caller.person_id, RELATIONS_MAX),
                queries.reported(caller.person_id, RELATIONS_MAX),
                queries.referred(caller.person_id, RELATIONS_MAX),
                queries.emergencies_of(caller.actor, EMERGENCIES_MAX),
            )
        )
        now = clock.now()
        patients: set[str] = set()
        studies: set[str] = set()
        for row in stated:
            if not row["ended"] and (not row["until"] or datetime.fromisoformat(row["until"]) > now):
                (studies if row["study_uid"] else patients).add(row["study_uid"] or row["patient_key"])
        let_in = [_Let(r["study_uid"] or "", r["patient_key"] or "", _moment(r["until"])) for r in emergencies]
        for let in (*let_in, *self._let_in.get(caller.actor, ())):
            if let.until > now:
                patients |= {let.patient_key} - {""}
                studies |= {let.study_uid} - {""}
        patients |= {row["patient_key"] for row in referred if row["status"] not in ORDER_CANCELLED}
        covered = {row["study_uid"] for row in reported if row["relation"]}
        places = await self.places(covered)
        patients |= {p.patient_key for p in places.values()} - {""}
        return Reach(patients=await self.linked.widened(patients), studies=frozenset(studies | covered))

    async def may_look(self, caller: Caller) -> bool:
        """Whether somebody has stated an emergency in which they look for a patient: one about nobody yet."""
        rows = await self._tables.select(queries.emergencies_of(caller.actor, EMERGENCIES_MAX))
        stated = [_Let(r["study_uid"] or "", r["patient_key"] or "", _moment(r["until"])) for r in rows]
        now = clock.now()
        lets = (*stated, *self._let_in.get(caller.actor, ()))
        return any(let.until > now and not let.study_uid and not let.patient_key for let in lets)

    def let_in(self, actor: str, study_uid: str, patient_key: str, until: datetime) -> None:
        """An emergency was stated here: it holds at once, before its event is projected."""
        now = clock.now()
        lets = [let for let in self._let_in.get(actor, ()) if let.until > now]
        self._let_in[actor] = [*lets, _Let(study_uid, patient_key, until)][-EMERGENCIES_MAX:]
        self._facts.pop(actor, None)

    # -------------------------------------------------------------------------------------------- what

    async def places(self, study_uids: Iterable[str], *, anew: bool = False) -> dict[str, Place]:
        """Of studies that are known: whose they are and where from. Raises Transient."""
        now = clock.monotonic()
        found: dict[str, Place] = {}
        missing: list[str] = []
        for uid in dict.fromkeys(study_uids):
            known = self._places.get(uid)
            if known is not None and known[0] > now and not anew:
                found[uid] = known[1]
            else:
                missing.append(uid)
        answers = await self._tables.select_many([queries.study_place_of(u) for u in missing]) if missing else []
        for uid, rows in zip(missing, answers, strict=True):
            if rows and (place := _place(rows[0])) is not None:
                found[uid] = place
                _keep(self._places, uid, (now + PLACES_S, place))
        return found

    async def reported(self, report_id: str) -> str:
        """A study of a report; empty for one that is not known. Raises Transient."""
        rows = await self._tables.select(replace(queries.report(report_id), limit=1)) if report_id else []
        return next(iter(rows[0]["study_uids"] or ()), "") if rows else ""

    async def outside(self, reach: Reach, study_uids: Sequence[str]) -> tuple[str, str] | None:
        """The first (study UID, patient key) beyond a reach; None if all are within. One that is not known is within:
        there is nothing of it to see. Raises Transient.
        """
        beyond = await self._outside(reach, study_uids, anew=False)
        return await self._outside(reach, study_uids, anew=True) if beyond else None

    async def _outside(self, reach: Reach, study_uids: Sequence[str], *, anew: bool) -> tuple[str, str] | None:
        if reach.whole:
            return None
        places = await self.places(study_uids, anew=anew)
        for uid, place in places.items():
            if not reach.shows(uid, place.patient_key, place.sites):
                return uid, place.patient_key
        return None

    async def keeps_out(self, reach: Reach, patient_key: str) -> bool:
        """Whether a patient's file is beyond a reach: neither named nor with a study of an own site."""
        if reach.whole or patient_key in reach.patients:
            return False
        if not reach.sites and not reach.studies:
            return True
        listed = await self._tables.select(queries.patient_page(patient_key, PATIENT_STUDIES_MAX))
        rows = [{"study_uid": r["study_uid"], "patient_key": patient_key} for r in listed]
        return not await self.kept(reach, rows)

    async def kept(self, reach: Reach, rows: Sequence[Row]) -> list[Row]:
        """Of rows with `study_uid` (and `patient_key`, where they have it) those within a reach."""
        if reach.whole:
            return list(rows)
        named = {r["study_uid"] for r in rows if reach.names(r["study_uid"], r.get("patient_key") or "")}
        left = [r["study_uid"] for r in rows if r["study_uid"] and r["study_uid"] not in named]
        places = await self.places(left)
        named |= {uid for uid, p in places.items() if reach.shows(uid, p.patient_key, p.sites)}
        return [r for r in rows if r["study_uid"] in named]

    async def still(self, reach: Reach, rows: Sequence[Row]) -> list[Row]:
        """Of rows with `study_uid` those whose study is within a reach now, or is not known, or is none."""
        if reach.whole:
            return list(rows)
        places = await self.places(r["study_uid"] for r in rows if r["study_uid"])
        beyond = {uid for uid, p in places.items() if not reach.shows(uid, p.patient_key, p.sites)}
        return [r for r in rows if r["study_uid"] not in beyond]

    def forget(self) -> None:
        """People have corrected something: a study may be another's."""
        self._places.clear()
        self._facts.clear()

    @property
    def _tables(self) -> Tables:
        return self._connected()


@dataclass(frozen=True)
class Within:
    """What narrows a search to a reach."""

    reach: Reach
    scopes: Scopes

    def plan(self, plan: Plan) -> Plan:
        """The plan for those who see few: their patients' files instead of everybody's days and names."""
        if self.reach.whole:
            return plan
        if self.reach.sites or isinstance(plan.source, ByUid | BySop | ByAccession):
            return replace(plan, counted=False)
        source = ByReach(tuple(sorted(self.reach.patients)), tuple(sorted(self.reach.studies)))
        return replace(plan, source=source, counted=False)

    async def kept(self, rows: list[Row]) -> list[Row]:
        """Of rows found those within the reach."""
        return rows if self.reach.whole else await self.scopes.kept(self.reach, rows)


def _place(row: Row) -> Place | None:
    laid = decode(row["overlay"]) if row["overlay"] else None
    key = (laid.patient_key if laid else "") or row["patient_key"] or ""
    # A row that only a lifecycle event has made knows no site yet: nothing of it is to be seen
    return Place(key, frozenset(row["sites"])) if row["sites"] else None


def _moment(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else clock.now()


V = TypeVar("V")


def _keep(where: OrderedDict[str, V], key: str, value: V) -> None:
    where[key] = value
    where.move_to_end(key)
    if len(where) > KNOWN_MAX:
        where.popitem(last=False)
