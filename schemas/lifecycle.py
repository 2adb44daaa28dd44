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
