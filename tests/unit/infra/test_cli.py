"""The command line without servers: help, errors, the rooms' commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from infra.cli import sijil


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command's words."""
    context = click.Context(group)
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"the entry point of {name} cannot be loaded"
        found.append((*prefix, name))
        if isinstance(command, click.Group):
            found += commands(command, (*prefix, name))
    return found


ALL = commands(sijil)


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli", *words]
    environment = {"SIJIL_HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_and_option_says_what_it_does(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(sijil, [*words, "--help"])
    assert shown.exit_code == 0
    command: click.Command = sijil
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    assert len((command.help or "").split()) > 3
    assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_what_stands_in_the_table_of_commands_is_there() -> None:
    assert {("up",), ("down",), ("status",), ("logs",), ("migrate",), ("ae", "add"), ("ae", "list")} <= set(ALL)


def test_without_a_stack_the_commands_say_so_in_one_line(tmp_path: Path) -> None:
    home = tmp_path / ".sijil"
    status = run(home, "status")
    assert (status.returncode, status.stdout) == (1, "nothing is running: `sijil up` starts it\n")
    assert run(home, "status", "--json").stdout.strip() == "[]"
    assert run(home, "down").stdout == "nothing was running\n"
    logs = run(home, "logs", "kafka")
    assert (logs.returncode, logs.stderr) == (1, "sijil: kafka has written no log yet\n")


def test_an_error_of_ours_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = run(tmp_path, "logs", "zookeeper")
    assert done.returncode == 1
    assert done.stderr.startswith("sijil: there is no part 'zookeeper': choose from api, archiver,")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, "frobnicate")
    assert done.returncode == 2
    assert "No such command 'frobnicate'" in done.stderr


def test_the_last_lines_of_a_log_are_shown(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/kafka.log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert run(tmp_path, "logs", "kafka", "-n", "2").stdout == "line 98\nline 99\n"
    assert run(tmp_path, "logs", "kafka").stdout.count("\n") == 50


def test_a_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "ae", "list")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("sijil: ")
    assert "Traceback" not in done.stderr


def test_secrets_are_made_for_servers_elsewhere(tmp_path: Path) -> None:
    done = run(tmp_path, "secrets")
    assert done.returncode == 0
    roles = (tmp_path / "secrets/roles.cql").read_text()
    password = next(
        line.partition("=")[2]
        for line in (tmp_path / "secrets/worker.env").read_text().splitlines()
        if line.startswith("SIJIL_CASSANDRA_PASSWORD")
    )
    assert f"CREATE ROLE IF NOT EXISTS sijil_worker WITH PASSWORD = '{password}'" in roles
    assert password not in done.stdout
