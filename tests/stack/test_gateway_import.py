"""`sijil import` against the STOW-RS door."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner, Result

from producers import importer
from producers.media import find
from tests.stack.gateway_doors import Doors, open_doors
from tests.unit.producers.samples import file


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    with open_doors(tmp_path / "home", monkeypatch) as both:
        yield both


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A folder with images, in folders and in a ZIP, and what else is on discs."""
    root = tmp_path / "disc"
    (root / "a" / "b").mkdir(parents=True)
    for n in range(6):
        (root / "a" / f"IM{n}").write_bytes(file(f"1.2.{n}"))
    (root / "a" / "b" / "again").write_bytes(file("1.2.0"))
    (root / "viewer.exe").write_bytes(b"MZ" + bytes(5000))
    (root / "empty").write_bytes(b"")
    with zipfile.ZipFile(root / "more.zip", "w", zipfile.ZIP_DEFLATED) as z:
        for n in range(6, 9):
            z.writestr(f"x/y/{n}.dcm", file(f"1.2.{n}", pixels=bytes(50_000)))
        z.writestr("readme.txt", "not an image")
    return root


def run(doors: Doors, *words: str | Path, home: Path | None = None) -> Result:
    environment = {"SIJIL_HOME": str(home or doors.settings.home / "operator")}
    return CliRunner(env=environment).invoke(importer.command, ["--url", doors.url, *map(str, words)])


def test_a_folder_with_a_zip(doors: Doors, disc: Path) -> None:
    done = run(doors, disc)
    assert done.exit_code == 0, done.output
    assert "stored 10 " in done.output
    assert "no instances: 3" in done.output
    doors.until(lambda: len(doors.files()) == 9)
    assert {s.door for m in doors.manifests() for s in m.pack.senders} == {"import"}
    assert doors.rejected() == []


def test_it_goes_on_where_it_was(doors: Doors, disc: Path) -> None:
    run(doors, disc / "a")
    done = run(doors, disc)
    assert "stored 3 " in done.output
    assert "known from before 7" in done.output
    (disc / "a" / "IM0").write_bytes(file("1.2.0", pixels=b"new "))
    assert "stored 1 " in run(doors, disc).output
    assert "stored 10 " in run(doors, "--again", disc).output


def test_refused_files_are_named_with_their_reasons(doors: Doors, disc: Path) -> None:
    (disc / "cut").write_bytes(file("1.2.77", pixels=bytes(500))[:-50])
    (disc / "nameless").write_bytes(file("1.2.78", study=""))
    done = run(doors, disc)
    assert done.exit_code == 1
    assert "truncated (1)" in done.output
    assert "uid-missing (1)" in done.output
    assert "cut" in done.output
    assert "stored 10 " in done.output
    again = run(doors, disc)
    assert again.exit_code == 0  # decided: not sent again
    assert "known from before 15" in again.output


def test_media_by_its_dicomdir(doors: Doors, tmp_path: Path) -> None:
    tests = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
    medium = tmp_path / "medium"
    shutil.copytree(tests, medium)
    (medium / "not-referred").write_bytes(file("1.2.99"))
    done = run(doors, medium / "DICOMDIR")
    assert done.exit_code == 0, done.output
    found = list(find([medium / "DICOMDIR"]))
    assert len(found) == 31
    assert f"stored {len(found)} " in done.output
    doors.until(lambda: sum(m.pack.instances for m in doors.manifests()) == 31)


def test_paths_that_lead_out_of_the_medium_are_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "medium"
    inside.mkdir()
    (tmp_path / "SECRET").write_bytes(file("1.2.1"))
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "DICOMDIR"
    ds = pydicom.dcmread(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydicom's, of what no DICOMDIR should say
        for record in ds.DirectoryRecordSequence:
            if "ReferencedFileID" in record:
                record.ReferencedFileID = ["..", "SECRET"]
        ds.save_as(inside / "DICOMDIR")
        assert list(find([inside / "DICOMDIR"])) == []


def test_a_damaged_zip(doors: Doors, disc: Path) -> None:
    """Damage that is found at the end of a member, when half a request is with the archive already."""
    long = file("1.2.10", pixels=os.urandom(300_000))
    path = disc / "more.zip"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as z:
        z.writestr("long.dcm", long)
    data = bytearray(path.read_bytes())
    data[data.index(long[100_000:100_050])] ^= 1
    path.write_bytes(data)
    done = run(doors, disc)
    assert done.exit_code == 1
    assert "unreadable (1)" in done.output
    assert "stored 10 " in done.output
    doors.until(lambda: len(doors.files()) == 9)


def test_an_archive_that_is_away(doors: Doors, disc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "AWAY_S", 0.5)
    monkeypatch.setattr(importer, "DELAY_S", (0.1, 0.2))
    done = CliRunner(env={"SIJIL_HOME": str(disc.parent / "op")}).invoke(
        importer.command, ["--url", "http://127.0.0.1:9/dicom-web", str(disc)]
    )
    assert done.exit_code != 0
    assert "does not take anything" in str(done.exception)


def test_every_file_that_pydicom_ships(doors: Doors) -> None:
    spec = find_spec("data_store")
    assert spec is not None
    assert spec.origin is not None
    done = run(doors, Path(pydicom.__file__).parent / "data" / "test_files", Path(spec.origin).parent / "data")
    assert done.exit_code == 1
    assert "uid-missing (9)" in done.output
    assert "truncated (3)" in done.output
    assert "stored 212 " in done.output
