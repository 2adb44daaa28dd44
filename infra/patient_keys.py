"""Patient keys with the aliases of the read models: shell around `schemas.patient_keys`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from infra.ports import Select, Tables
from schemas.patient_keys import Keys, PatientSecrets

TABLE = "patient_aliases"
KNOWN_MAX = 100_000
"""Numbers remembered: some tens of MB."""

T = TypeVar("T")


class PatientKeys:
    """The keys of one process and keyspace."""

    def __init__(self, tables: Tables, secrets: PatientSecrets) -> None:
        self._tables, self._secrets = tables, secrets
        self._known: dict[str, str] = {}

    async def made(self, run: Callable[[Keys], T]) -> tuple[T, dict[str, str]]:
        """What `run` gives, a pure function that asks for keys, and the aliases that it found to be new: they have to
        be published before the previous secret goes. Raises Transient, and what `run` raises.
        """
        if len(self._known) > KNOWN_MAX:
            self._known = {}
        known = self._known
        while True:
            keys = Keys(self._secrets, known)
            result = run(keys)
            if not keys.missing:
                return result, keys.aliases
            found = await self.aliases(keys.missing)
            if self._secrets.previous is None:  # what is no alias now never becomes one
                known.update(found)
            else:
                self._known |= {key: file for key, file in found.items() if file}
                known = known | found

    async def aliases(self, asked: set[str]) -> dict[str, str]:
        """Each key → key of its file, "" where it is no alias. Raises Transient."""
        wanted = sorted(asked)
        rows = await self._tables.select_many([Select(TABLE, {"alias": key}, ("patient_key",)) for key in wanted])
        return {key: found[0]["patient_key"] if found else "" for key, found in zip(wanted, rows, strict=True)}
