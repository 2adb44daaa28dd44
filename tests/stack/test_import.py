"""`sijil import` against the whole archive: a folder with a ZIP and a broken file, twice."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack

pytestmark = pytest.mark.connected


def test_an_import_brings_everything_in_once(archive: Archive, whole: LocalStack, tmp_path: Path) -> None:
    loose, zipped = make_ct(tmp_path / "made", studies=2, slices=3, seed=91, rows=16)
    medium = tmp_path / "CD"
    (medium / "IMAGES").mkdir(parents=True)
    for i in loose:
        i.path.rename(medium / "IMAGES" / i.path.name)
    with zipfile.ZipFile(medium / "prior.zip", "w") as z:
        for i in zipped:
            z.write(i.path, i.path.name)
    (medium / "AUTORUN.INF").write_text("[autorun]")
    whole_file = (medium / "IMAGES" / loose[0].path.name).read_bytes()
    (medium / "IMAGES" / "torn.dcm").write_bytes(whole_file[: len(whole_file) // 2])

    first = whole.sijil("import", str(medium))
    assert first.returncode == 1, first.stderr
    assert "accepted 6 files" in first.stdout, first.stdout
    assert "1 are not DICOM" in first.stdout
    assert "truncated" in first.stdout
    for study in (loose, zipped):
        wait_until(lambda uid=study[0].study: archive.instance_count(uid) == 3, 30, "found")  # type: ignore[misc]

    again = whole.sijil("import", str(medium))
    assert "accepted 0 files" in again.stdout, again.stdout
    assert "6 were accepted before" in again.stdout

    (medium / "IMAGES" / "torn.dcm").unlink()
    assert whole.sijil("import", str(medium), "--again").returncode == 0
    assert archive.instance_count(loose[0].study) == 3
