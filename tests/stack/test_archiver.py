"""Copies of one instance through the real door: told apart by content; every pack lies locked in the archive bucket."""

from __future__ import annotations

import asyncio
import io
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from infra import clock
from infra.cassandra import CassandraTables
from infra.objects import S3Objects
from infra.ports import Row, Select
from infra.settings import Settings
from tests.archive import Archive, sha256, wait_until
from tests.local_stack import LocalStack

pytestmark = pytest.mark.connected

CT = Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm"


def instance(study: str, syntax: str, description: str = "chest") -> bytes:
    """CT_small under a study of ours, in a transfer syntax."""
    with warnings.catch_warnings(action="ignore"):
        ds = pydicom.dcmread(CT)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, f"{study}.1", f"{study}.1.1"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        ds.StudyDescription = description
        out = io.BytesIO()
        ds.save_as(out, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return out.getvalue()


def packs_of(settings: Settings, study: str) -> list[Row]:
    """Rows of `packs` of a study."""
    tables = CassandraTables.connect(settings)

    async def read() -> list[Row]:
        found = await tables.select(Select("packs_by_study", {"study_uid": study}, ("pack_id",)))
        return [(await tables.select(Select("packs", {"pack_id": r["pack_id"]})))[0] for r in found]

    try:
        return asyncio.run(read())
    finally:
        tables.close()


def test_copies_are_told_apart_and_packs_are_locked(archive: Archive, whole: LocalStack) -> None:
    study = f"1.2.88.{clock.now_ms()}"
    first = instance(study, ExplicitVRLittleEndian)
    copies = (
        first,
        instance(study, ImplicitVRLittleEndian),  # the same content, encoded otherwise
        instance(study, ExplicitVRLittleEndian, "abdomen"),  # another content under the same UID
    )
    for number, copy in enumerate((first, *copies[1:]), start=1):
        assert archive.stow([copy]).status_code == 200
        wait_until(lambda n=number: archive.json(f"/studies/{study}")["packs"] == n, 40, "its pack is there")  # type: ignore[misc]

    def conflicts() -> list[dict[str, str]]:
        return [c for c in archive.json("/conflicts")["conflicts"] if c["study_uid"] == study]

    (conflict,) = wait_until(conflicts, 60, "the conflict is listed")
    assert conflict["sop_uid"] == f"{study}.1.1"
    assert conflict["reason"] == "content-differs"
    assert archive.instance_count(study) == 1
    assert archive.original(study, f"{study}.1", f"{study}.1.1") == first, "the first in log order is served"

    settings = whole.settings("operator")
    objects = S3Objects(settings)
    wait_until(lambda: all(r["archive_version_id"] for r in packs_of(settings, study)), 60, "every pack is archived")
    rows = packs_of(settings, study)
    assert len(rows) == 3
    assert [r["pack_id"] for r in rows].index(conflict["second_pack_id"]) == 2, "the re-encoded copy is no conflict"
    for row in rows:
        version = row["archive_version_id"]
        info = objects.head(row["archive_bucket"], row["archive_key"], version_id=version)
        assert info.retain_until >= f"{clock.now().year + 4}"
        assert sha256(objects.get(row["archive_bucket"], row["archive_key"], version_id=version)) == row["sha256"]
