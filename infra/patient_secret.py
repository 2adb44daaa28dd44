"""By which secrets the archive makes patient keys, and who makes some now: rows of `sijil_state`.

A process that has another secret than its archive would give patients second files, so it does not start. One that is
given a newer secret beside the archive's begins its replacement; `streams.retiring` ends that, alone: while it is at
work nobody makes keys. It and they tell each other by rows that vanish when they are not written again, so that nobody
waits for a process that was killed. The order of steps, in which none of them misses the other:
1. a row of one's own
2. look for the others'
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from infra import clock, service, telemetry
from infra.ports import Select, Tables
from infra.settings import Settings
from schemas.errors import Permanent, Transient
from schemas.patient_keys import PatientSecrets
from schemas.tables import HOLDER_TTL_S, STATE_KEYSPACE, Delete, Upsert

log = telemetry.logger(__name__)

SECRETS, HOLDERS = "patient_secrets", "patient_secret_holders"
RETIRING = "retiring"
"""The holder that wants to be alone."""
LOOK_S = 1.0
BELIEVED_S = HOLDER_TTL_S / 2
"""A process that could not write its row for so long ends, well before that is gone."""
_ROW = {"name": "patient"}

T = TypeVar("T")


class PatientSecretError(Permanent):
    """The secret of patient keys is not the archive's; the message says what to do."""


async def fingerprints(state: Tables) -> tuple[str, ...]:
    """Of the archive's secrets, the newest first; none before anybody made keys. Raises Transient."""
    rows = await state.select(Select(SECRETS, _ROW, ("fingerprints",)))
    return tuple(rows[0]["fingerprints"] or ()) if rows else ()


async def settle(state: Tables, found: Sequence[str]) -> None:
    """These are the archive's secrets from now on. Raises Transient."""
    await state.apply([Upsert(SECRETS, _ROW, {"fingerprints": list(found)}, _timestamp())])


async def agreed(state: Tables, secrets: PatientSecrets) -> PatientSecrets:
    """The secrets to work with: those given, without one that was retired. The first ones become the archive's, and so
    do two of which the previous is. Raises PatientSecretError, Transient.
    """
    known, given = await fingerprints(state), secrets.fingerprints
    if given == known:
        return secrets
    if not known or given[1:] == known:
        await settle(state, given)
        return secrets
    if known == given[:1]:
        return PatientSecrets(secrets.newest)
    if given == known[1:]:
        raise PatientSecretError(
            f"the patient secret is being replaced and SIJIL_PATIENT_SECRET holds the previous one alone: give this"
            f" process both, the newer ({known[0]}) first"
        )
    if given == known[:1]:
        raise PatientSecretError(
            f"SIJIL_PATIENT_SECRET lacks the previous patient secret ({known[1]}), by which files are still found: give"
            " this process both, or end the replacement with `sijil retire-patient-secret`"
        )
    raise PatientSecretError(
        f"SIJIL_PATIENT_SECRET ({', '.join(given)}) is not the secret of this archive ({', '.join(known)}):"
        " patients would get second files. Put that back; `sijil secrets rotate patient` is how it changes"
    )


class Holder:
    """A process that makes patient keys, from `admitted` to `release`."""

    def __init__(self, tables: Tables, secrets: PatientSecrets, name: str) -> None:
        """`tables`: of any keyspace. `name`: of the process, as people are told who is in the way."""
        self._state, self._secrets, self._name = tables.with_keyspace(STATE_KEYSPACE), secrets, name
        self._seen = 0.0

    @classmethod
    def of(cls, settings: Settings, role: str, tables: Tables) -> Holder:
        """A process of that role. Raises Invalid where its setting holds no secret."""
        return cls(tables, PatientSecrets.parse(settings.patient_secret), f"{role} {settings.site}/{settings.instance}")

    async def admitted(self) -> PatientSecrets:
        """What to make keys with; waits while a secret is retired. Raises PatientSecretError, Transient."""
        told = False
        while True:
            await self.hold()
            if RETIRING not in await self.others():
                try:
                    return await agreed(self._state, self._secrets)
                except PatientSecretError:
                    await self.release()
                    raise
            await self.release()
            if not told:
                log.info("waits: a patient secret is being retired")
                told = True
            await asyncio.sleep(LOOK_S)

    async def alone(self, wait_s: float) -> None:
        """Wait until no other holder is left. Raises Transient, naming them, when they stay."""
        deadline = clock.monotonic() + wait_s
        while others := await self.others():
            if clock.monotonic() > deadline:
                raise Transient(f"still makes patient keys: {', '.join(others)}")
            await asyncio.sleep(LOOK_S)

    async def watch(self) -> int:
        """Hold until somebody retires a secret or another one holds (SWITCHED), or that cannot be told (FAILED)."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.hold()
                switched = RETIRING in await self.others()
            except Transient as error:
                log.warning("holder of the patient secret not written", reason=str(error))
                if clock.monotonic() - self._seen > BELIEVED_S:
                    return service.FAILED
                continue
            if switched:
                log.info("ends: a patient secret is being retired")
                return service.SWITCHED

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, held meanwhile. Raises Transient where that cannot be held any longer."""
        doing, watching = asyncio.ensure_future(work), asyncio.ensure_future(self.watch())
        try:
            await asyncio.wait([doing, watching], return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise Transient("patient keys may not be made at this moment: begin again")
            return doing.result()
        finally:
            doing.cancel()
            watching.cancel()
            await asyncio.gather(doing, watching, return_exceptions=True)

    async def hold(self) -> None:
        """Say so. Raises Transient."""
        at, moment = clock.monotonic(), clock.now()
        row = {**_ROW, "holder": self._name}
        await self._state.apply([Upsert(HOLDERS, row, {"seen": moment}, _timestamp())])
        self._seen = at

    async def others(self) -> list[str]:
        """Names of the other holders. Raises Transient."""
        rows = await self._state.select(Select(HOLDERS, _ROW, ("holder",)))
        return [row["holder"] for row in rows if row["holder"] != self._name]

    async def released(self) -> None:
        """The same as the last thing that a process does, which needs no answer."""
        try:
            await self.release()
        except Transient as error:
            log.warning("holder of the patient secret stays for a moment", reason=str(error))

    async def release(self) -> None:
        """It makes none any more. Raises Transient: then the row vanishes by itself."""
        await self._state.apply([Delete(HOLDERS, {**_ROW, "holder": self._name}, _timestamp())])


def _timestamp() -> int:
    return int(clock.now().timestamp() * 1_000_000)
