"""States and the changes between them that are allowed, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_AFTER_FINAL: Final = frozenset({"amended", "corrected", "appended", "entered-in-error"})

REPORT_TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"registered", "partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled"}),
    "registered": frozenset({"registered", "partial", "preliminary", "final", "cancelled", "entered-in-error"}),
    "partial": frozenset({"partial", "preliminary", "final", "cancelled", "entered-in-error"}),
    "preliminary": frozenset({"preliminary", "final", "cancelled", "entered-in-error"}),
    "final": _AFTER_FINAL,
    "amended": _AFTER_FINAL,
    "corrected": _AFTER_FINAL,
    "appended": _AFTER_FINAL,
    "cancelled": frozenset({"entered-in-error"}),
    "entered-in-error": frozenset(),
}
"""FHIR R4 DiagnosticReport.status: from → to, each arrow a new version; "" is a report that is not there yet.

What was final once is read by doctors: it is amended, corrected, appended to or taken back, never preliminary again. A
report may be known to the archive first in a later state, since it may have begun elsewhere.
"""


def may_follow(status: str, after: str) -> bool:
    """Whether a version with `status` may follow one with `after` ("" for none)."""
    return status in REPORT_TRANSITIONS.get(after, frozenset())


SIGNED: Final = frozenset({"final"}) | _AFTER_FINAL - {"entered-in-error"}
"""States that somebody must have signed who may. What others write of these becomes SIGNED_LATER, or is refused."""
SIGNED_LATER: Final = "preliminary"
"""What `final` is until it is signed: it waits for a supervisor."""
AWAIT_SIGNATURE: Final = frozenset({"registered", "partial", "preliminary"})
"""States from which a signature makes a report final."""
TAKEN_BACK: Final = frozenset({"cancelled", "entered-in-error"})
"""What such a report said does not hold."""


def as_written(status: str, after: str, may_sign: bool) -> str:
    """The status of a version that somebody asks for who may, or may not, sign; "" if that is not theirs to write.

    Who may not sign writes drafts, and takes back only what was never signed.
    """
    if may_sign:
        return status
    if status == "final" and after in AWAIT_SIGNATURE | {""}:
        return SIGNED_LATER
    return "" if status in SIGNED or after in SIGNED else status


CRITICAL_TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"raised"}),
    "raised": frozenset({"escalated", "acknowledged"}),
    "escalated": frozenset({"escalated", "acknowledged"}),
    "acknowledged": frozenset(),
}
"""A critical result: raised, passed on from contact to contact, and acknowledged once, by whoever reads it back."""


ORDER_TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"draft", "active", "on-hold", "completed"}),
    "draft": frozenset({"draft", "active", "on-hold", "revoked", "entered-in-error"}),
    "active": frozenset({"active", "on-hold", "revoked", "completed", "entered-in-error"}),
    "on-hold": frozenset({"active", "on-hold", "revoked", "entered-in-error"}),
    "completed": frozenset({"completed", "entered-in-error"}),
    "revoked": frozenset({"entered-in-error"}),
    "entered-in-error": frozenset(),
}
"""FHIR R4 request-status: from → to, each arrow a new version; "" is an order that is not there yet. What was revoked
is ordered anew, so that nobody examines a patient by an order that was taken back.
"""

ORDER_CANCELLED: Final = frozenset({"revoked", "entered-in-error"})
