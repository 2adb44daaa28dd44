"""The one distribution: what a wheel holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"schemas", "infra", "producers", "streams", "consumers"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in the wheel of what is in git."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(source)], check=True, timeout=60)
    build = [str(Path(sys.executable).with_name("uv")), "build", "--wheel", "-q", "-o", str(folder), str(source)]
    subprocess.run(build, check=True, timeout=180)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_its_top_level_names_are_the_five_rooms(wheel: list[str]) -> None:
    assert {n.split("/")[0] for n in wheel if ".dist-info/" not in n} == ROOMS


def test_data_that_the_program_reads_is_in_it(wheel: list[str]) -> None:
    for wanted in (
        "infra/cql/0001_state.cql",
        "infra/cql/0002_views.cql",
        "infra/cql/0003_sessions.cql",
        "infra/stack/pom.xml",
        "infra/stack/launch.py",
        "schemas/asyncapi.yaml",
        "schemas/py.typed",
    ):
        assert wanted in wheel
    assert any(n.startswith("schemas/json/") and n.endswith(".schema.json") for n in wheel)


def test_no_test_is_shipped(wheel: list[str]) -> None:
    assert not [n for n in wheel if "test" in Path(n).name]
