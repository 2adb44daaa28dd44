"""README's table of roles is the one in code."""

from __future__ import annotations

from pathlib import Path

from schemas.roles import DEFAULT_PURPOSE, PERMISSIONS, ROLES, TABLE, Permission, Role, Scope

README = Path(__file__).resolve().parents[2] / "README.md"


def rows() -> list[str]:
    """The table as README shows it: a row for each role, its permissions by scope."""
    found = ["| role | what it is for | may | default purpose |", "|---|---|---|---|"]
    for role in Role:
        if role is Role.LOCAL:
            continue
        by_scope: dict[Scope, list[str]] = {}
        for permission, scope in TABLE[role].items():
            if permission is not Permission.SELF_READ:
                by_scope.setdefault(scope, []).append(f"`{permission}`")
        may = "; ".join(f"{scope}: {', '.join(sorted(by_scope[scope]))}" for scope in Scope if scope in by_scope)
        found.append(f"| {role} | {ROLES[role]} | {may or 'sees who they are'} | {DEFAULT_PURPOSE[role]} |")
    return found


def test_the_table_in_readme_is_the_one_in_code() -> None:
    text = README.read_text(encoding="utf-8")
    assert "\n".join(rows()) in text, "put this into README:\n" + "\n".join(rows())


def test_everything_has_a_word() -> None:
    assert set(ROLES) == set(Role) == set(TABLE) == set(DEFAULT_PURPOSE)
    assert set(PERMISSIONS) == set(Permission)
