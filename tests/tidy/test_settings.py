"""Settings and what is written about them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.cli import sijil
from infra.settings import SETTINGS
from schemas.identity import IMPLEMENTATION_VERSION_NAME

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {s.env for s in SETTINGS} | {"SIJIL_HOME"}
OF_TESTS = {"SIJIL_TEST_HOME", "SIJIL_TEST_EHR", "SIJIL_FAULT"}


def tracked(*patterns: str) -> list[Path]:
    """Files in git of these patterns."""
    done = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).exists()]


def test_each_setting_says_what_it_is() -> None:
    assert all(len(s.help) > 8 and not s.help.endswith(".") for s in SETTINGS)
    assert len({s.env for s in SETTINGS}) == len(SETTINGS)


def test_what_is_secret_is_named_so_and_has_no_default() -> None:
    for s in SETTINGS:
        assert s.secret is bool(re.search(r"PASSWORD|SECRET|LETTER_KEY|_TOKEN", s.env)), s.env
        assert not (s.secret and s.default)


def test_the_command_lists_every_setting() -> None:
    shown = CliRunner().invoke(sijil, ["settings"]).output
    assert re.findall(r"^(SIJIL_\w+)=", shown, re.M) == [s.env for s in SETTINGS]


@pytest.mark.parametrize("path", tracked("*.md", "*.yaml", "Makefile", "infra/**.py"), ids=lambda p: p.name)
def test_every_setting_that_is_written_about_exists(path: Path) -> None:
    named = set(re.findall(r"\bSIJIL_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8")))
    shortened = {n for n in named if any(k.startswith(n + "_") for k in KNOWN)}
    assert named - shortened <= KNOWN | OF_TESTS | {"SIJIL_SECRETS", IMPLEMENTATION_VERSION_NAME}
