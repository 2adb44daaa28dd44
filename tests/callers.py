"""Callers for tests that are not about who calls."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

from infra.http_caller import address_of
from schemas.caller import Caller
from schemas.roles import DEFAULT_PURPOSE, Role


@dataclass(frozen=True)
class Anyone:
    """An authenticator that takes every request for a caller of one role."""

    role: Role = Role.LOCAL

    async def caller(self, scope: Scope) -> Caller | None:
        """Whoever it is."""
        address = address_of(scope)
        return Caller(f"http:{address}", self.role, DEFAULT_PURPOSE[self.role], address=address)
