"""What an import finds, skips and remembers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from producers.importer import ACCEPTED, REFUSED, Item, Notes, find, looks_like_dicom, open_item
from schemas.errors import Permanent

DICOM = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + b"\0" * 100


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A CD: a directory file, images in folders, a viewer, and a ZIP."""
    root = tmp_path / "CD"
    (root / "IMAGES").mkdir(parents=True)
    (root / "DICOMDIR").write_bytes(DICOM)
    (root / "IMAGES" / "IM2").write_bytes(DICOM)
    (root / "IMAGES" / "IM1").write_bytes(DICOM)
    (root / "VIEWER.EXE").write_bytes(b"MZ" + b"\0" * 200)
    with zipfile.ZipFile(root / "more.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("a/IM3", DICOM)
    return root


def test_folders_members_and_media_are_found_in_order(medium: Path) -> None:
    names = [str(item.name).removeprefix(str(medium)) for item in find([medium])]
    assert names == ["/DICOMDIR", "/VIEWER.EXE", "/more.zip!a/IM3", "/IMAGES/IM1", "/IMAGES/IM2"]
    assert [i.name for i in find([medium / "DICOMDIR"])] == [i.name for i in find([medium])]


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Permanent):
        list(find([tmp_path / "nothing"]))


@pytest.mark.parametrize(
    ("head", "name", "dicom"),
    [
        (DICOM[:132], "IM1", True),
        (b"\x08\x00\x05\x00CS" + b"\0" * 126, "bare", True),
        (DICOM[:132], "CD/DICOMDIR", False),
        (b"MZ" + b"\0" * 130, "VIEWER.EXE", False),
        (b"", "empty", False),
    ],
)
def test_what_cannot_be_dicom_is_not_sent(head: bytes, name: str, dicom: bool) -> None:
    assert looks_like_dicom(head, name) is dicom


def test_members_are_read_and_encrypted_ones_refused(medium: Path, tmp_path: Path) -> None:
    item = next(i for i in find([medium / "more.zip"]))
    with open_item(item) as body:
        assert body.read() == DICOM
    locked = tmp_path / "locked.zip"
    data = bytearray((medium / "more.zip").read_bytes())
    data[6] |= 1  # the flag that says a member is encrypted, here and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(data)
    with pytest.raises(Permanent):
        open_item(Item(locked, len(DICOM), 0.0, "a/IM3"))


def test_notes_remember_what_was_accepted_until_the_file_changes(tmp_path: Path) -> None:
    item, refused = Item(Path("/a"), 5, 1.0), Item(Path("/b"), 5, 1.0)
    notes = Notes(tmp_path / "n.jsonl")
    notes.add(item, ACCEPTED, "")
    notes.add(refused, REFUSED, "truncated")
    notes.close()
    with (tmp_path / "n.jsonl").open("a") as f:
        f.write('{"name": "torn')
    again = Notes(tmp_path / "n.jsonl")
    assert again.has(item)
    assert not again.has(refused)
    assert not again.has(Item(Path("/a"), 6, 1.0))
    assert (tmp_path / "n.jsonl").stat().st_mode & 0o077 == 0
    again.close()
