"""Who may do what for what purpose: the decision, from the table of `schemas.roles` and the purposes below. Pure.

Purposes are HL7 v3 PurposeOfUse codes, as XUA and IHE IUA carry them. What a scope covers is decided from the read
models (`consumers.api.scope`).
"""

from __future__ import annotations

from collections.abc import Mapping

from schemas.caller import Caller
from schemas.roles import Permission, Role, Scope, scope_of

ALLOWED = ""

_CARE = frozenset({"TREAT", "ETREAT", "CAREMGT", "PATRQT", "HOPERAT", "HSYSADMIN", "HQUALIMP", "PATSFTY", "HCOMPL"})
_STATISTICS = frozenset({"HRESCH", "CLINTRCH", "PUBHLTH", "HQUALIMP"})

PURPOSES: Mapping[Role, frozenset[str]] = {
    **dict.fromkeys(Role, _CARE),
    Role.PATIENT: frozenset({"PATRQT"}),
    Role.OFFICER: frozenset({"HCOMPL", "HSYSADMIN", "PATSFTY", "PATRQT"}),
    Role.ANALYST: _STATISTICS,
    Role.MINISTRY: _STATISTICS,
}
"""Role → the purposes it may have."""

REFUSED: Mapping[str, str] = {
    "HRESCH": "research-needs-deidentified-data",
    "CLINTRCH": "research-needs-deidentified-data",
    "PUBHLTH": "public-health-needs-aggregates",
    "HPAYMT": "payment-needs-no-images",
    "COVERAGE": "payment-needs-no-images",
    "HMARKT": "marketing",
}
"""Purpose → why it is refused to whoever may not have it."""

KNOWN = sorted(REFUSED.keys() | frozenset().union(*PURPOSES.values()))


def refusal(caller: Caller, permission: Permission) -> str:
    """Why somebody may not do this at all; ALLOWED if they may, within the scope of the table."""
    if scope_of(caller.role, permission) is Scope.NONE:
        return "role"
    if caller.purpose in PURPOSES[caller.role]:
        return ALLOWED
    return REFUSED.get(caller.purpose, "purpose-role" if caller.purpose in KNOWN else "purpose-unknown")
