"""What the servers need, missing or wrong: one line that says what to do."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import Settings
from infra.stack import install
from infra.stack.errors import StackError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PATH with nothing on it but what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    install.java.cache_clear()
    yield folder
    install.java.cache_clear()


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_no_java(path: Path) -> None:
    with pytest.raises(StackError, match=r"no Java found: install Java 17 \(Debian: apt-get install openjdk-17"):
        install.java()


def test_another_java(path: Path) -> None:
    program(path / "java", "echo 'openjdk version \"21.0.4\" 2024-07-16' >&2")
    with pytest.raises(StackError, match=r"Java 21 at .*/java will not do: install Java 17"):
        install.java()


def test_java_17_of_java_home_comes_before_the_path(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    program(home / "bin/java", "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert install.java() == str(home / "bin/java")


def test_no_maven(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no Maven was found to fetch them: install it .* SIJIL_STACK_JARS"):
        install.jars(Settings(home=tmp_path), "kafka")


def test_maven_that_cannot_fetch(path: Path, tmp_path: Path) -> None:
    program(path / "mvn", "echo '[ERROR] Could not transfer artifact x: no route'; exit 1")
    with pytest.raises(StackError, match=r"could not fetch the jars of kafka: \[ERROR\] Could not transfer artifact x"):
        install.jars(Settings(home=tmp_path), "kafka")


def test_jars_of_this_pom_are_not_fetched_again_and_of_another_they_are(path: Path, tmp_path: Path) -> None:
    copy = 'for a in "$@"; do case $a in -DoutputDirectory=*) mkdir -p "${a#*=}";; esac; done'
    program(path / "mvn", f'{copy}; echo x >> "$0.ran"')
    (path / "mkdir").symlink_to("/bin/mkdir")
    settings = Settings(home=tmp_path)
    for _ in range(2):
        folder = install.jars(settings, "kafka")
    assert (path / "mvn.ran").read_text() == "x\n"
    assert (folder / ".pom.sha256").read_text() == hashlib.sha256(install.POM.read_bytes()).hexdigest()
    (folder / ".pom.sha256").write_text("of an older pom")
    (folder / "old.jar").touch()
    install.jars(settings, "kafka")
    assert (path / "mvn.ran").read_text() == "x\nx\n"
    assert not (folder / "old.jar").exists()
