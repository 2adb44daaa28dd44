"""Other people's programs against both doors as they are, on what stands in memory behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive import dataset, dcmtk
from tests.bench.corpus import make_ct
from tests.stack.gateway_doors import Doors, open_doors
from tests.unit.producers.samples import CT

CURL = "/usr/bin/curl"
PYNETDICOM = (sys.executable, "-m", "pynetdicom")


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    with open_doors(tmp_path / "home", monkeypatch) as both:
        yield both


def run(*command: str) -> str:
    """What it says; it must end well."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dcmsend(doors: Doors, files: list[str]) -> None:
    run(dcmtk("dcmsend"), "-aec", "SIJIL", "127.0.0.1", str(doors.dicom_port), *files)


def pynetdicom_storescu(doors: Doors, files: list[str]) -> None:
    for file in files:
        run(*PYNETDICOM, "storescu", "-aec", "SIJIL", "-xe", "127.0.0.1", str(doors.dicom_port), file)


def curl_stow(doors: Doors, files: list[str]) -> None:
    for file in files:
        headers = ("-H", "Content-Type: application/dicom", "-H", "Accept: application/dicom+json")
        run(CURL, "-sSf", *headers, "--data-binary", f"@{file}", f"{doors.url}/studies")


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(dcmsend, marks=pytest.mark.client("dcmtk dcmsend", feature="C-STORE")),
        pytest.param(pynetdicom_storescu, marks=pytest.mark.client("pynetdicom storescu", feature="C-STORE")),
        pytest.param(curl_stow, marks=pytest.mark.client("curl", feature="STOW-RS")),
    ],
)
def test_what_they_send_is_what_is_kept(doors: Doors, tmp_path: Path, send: object) -> None:
    (study,) = make_ct(tmp_path / "ct", studies=1, slices=3, seed=7, rows=32)
    assert callable(send)
    send(doors, [str(i.path) for i in study])
    doors.until(lambda: len(doors.files()) == 3)
    assert {sop: dataset(kept) for sop, kept in doors.files().items()} == {
        i.sop: dataset(i.path.read_bytes()) for i in study
    }


@pytest.mark.client("pynetdicom echoscu", feature="C-ECHO")
def test_pynetdicom_echoscu(doors: Doors) -> None:
    run(*PYNETDICOM, "echoscu", "-aec", "SIJIL", "127.0.0.1", str(doors.dicom_port))


@pytest.mark.client("curl", feature="Storage Commitment by HTTP")
def test_curl_asks_for_a_commitment(doors: Doors, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path / "ct", studies=1, slices=1, seed=8, rows=32)
    curl_stow(doors, [str(study[0].path)])
    item = {"00081150": {"vr": "UI", "Value": [CT]}, "00081155": {"vr": "UI", "Value": [study[0].sop]}}
    asked = json.dumps([{"00081199": {"vr": "SQ", "Value": [item]}}])
    where = f"{doors.url}/commitment-requests/1.9.1"
    said = run(CURL, "-sSf", "-H", "Content-Type: application/dicom+json", "-d", asked, where)
    assert study[0].sop in said
    assert "00081198" not in said


@pytest.mark.client("curl", feature="Conformance statement")
def test_curl_reads_the_conformance_statement(doors: Doors) -> None:
    text = run(CURL, "-sSf", doors.url.replace("/dicom-web", "/conformance"))
    assert text.startswith("# DICOM Conformance Statement")
