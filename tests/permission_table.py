"""The whole table of permissions as requests with what must come of each: every role × every operation × own or other.

Made from `schemas.roles.TABLE` and an OpenAPI document: an operation that names no permission there, or whose address
has a part that this does not know, fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from consumers.fhir.ids import patient_id
from schemas.roles import Permission, Role, Scope, scope_of

METHODS = frozenset({"get", "put", "post", "delete", "head", "options", "patch"})
ANYTHING = frozenset({Scope.WHOLE, Scope.PSEUDONYMS, Scope.AGGREGATES})
NAMES_A_TARGET = ("{study}", "{key}", "{patient}", "{report}")
ENDLESS = frozenset({"/changes/events"})


@dataclass(frozen=True)
class Target:
    """Something of somebody: what the parts of an address are filled with."""

    study: str
    key: str
    report: str

    def fill(self, path: str) -> str:
        """An address of it. AssertionError for a part that nobody knows here."""
        parts = {
            "study": self.study,
            "key": self.key,
            "report": self.report,
            "series": f"{self.study}.1",
            "instance": f"{self.study}.1.1",
            "frames": "1",
            "version": "1",
            "path": "7FE00010",
            "transaction": "2.25.7",
            "person": "dr-9",
            "order": "01890000-0000-7000-8000-000000000001",
            "other": "k1:" + "z" * 43,
            "patient": patient_id(self.key),
            "endpoint": "dicomweb",
            "access": "019550b8-2400-7000-8000-000000000001",
            "ae_title": "NOBODY",
            "invitation": "019550b8-2400-7000-8000-000000000001",
            "destination": "ehr",
            "subscription": "01890000-0000-7000-8000-000000000001",
            "waiting": "019550b8-2400-7000-8000-000000000001",
        }
        unknown = set(re.findall(r"{(\w+)(?::\w+)?}", path)) - set(parts)
        assert not unknown, f"{path} has a part that the permission test does not know: {unknown}"
        return re.sub(r"{(\w+)(?::\w+)?}", lambda m: parts[m[1]], path)


@dataclass(frozen=True)
class Case:
    """A request of a role, and whether it is let in."""

    role: Role
    method: str
    path: str
    body: Any
    own: bool
    permission: Permission
    reason: str
    """Why it is refused; empty: it is let in, whatever the answer is then."""


def operations(document: Mapping[str, Any], opened: frozenset[str]) -> Iterator[tuple[str, str, Permission]]:
    """(method, path, permission) of a document. AssertionError for an operation that says nothing and is not open."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method not in METHODS:
                continue
            named = operation.get("x-permission")
            if named is None:
                assert path in opened, f"{method.upper()} {path} names no permission"
            elif path not in ENDLESS:
                yield method.upper(), path, Permission(named)


def cases(document: Mapping[str, Any], opened: frozenset[str], own: Target, other: Target) -> Iterator[Case]:
    """Everything."""
    for method, path, permission in operations(document, opened):
        for role in Role:
            if role is Role.LOCAL:
                continue
            for is_own, target in ((True, own), (False, other)):
                body = _report(target.study) if path.startswith("/reports") and method in ("POST", "PUT") else None
                reason = _reason(role, method, path, permission, is_own)
                yield Case(role, method, target.fill(path), body, is_own, permission, reason)


def _reason(role: Role, method: str, path: str, permission: Permission, own: bool) -> str:
    scope = scope_of(role, permission)
    if scope is Scope.NONE:
        return "role"
    # Whoever stores is told nothing of what is there; a report names its studies in its body.
    targeted = any(part in path for part in NAMES_A_TARGET) or permission is Permission.REPORT_WRITE
    if own or scope in ANYTHING or not targeted or permission is Permission.STUDY_STORE:
        return ""
    return "scope"


def reason_of(body: Mapping[str, Any]) -> str:
    """Why a door refused, of a problem (RFC 9457) or of a FHIR OperationOutcome."""
    if body.get("resourceType") == "OperationOutcome":
        return str(body["issue"][0]["details"]["coding"][0]["code"])
    return str(body.get("reason"))


def _report(study_uid: str) -> Mapping[str, Any]:
    return {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "CT"},
        "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid}"}}],
    }
