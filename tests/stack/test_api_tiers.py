"""Reads go on from the archive's locked copy when the hot one is gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infra import s3
from schemas.pack import IDENTITY, ZSTD, manifest_key, pack_key
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack

pytestmark = pytest.mark.connected


@pytest.mark.parametrize(("rows", "encoding"), [(64, ZSTD), (4, IDENTITY)])
def test_a_study_is_read_from_the_archive_when_its_hot_pack_is_gone(
    archive: Archive, whole: LocalStack, tmp_path: Path, rows: int, encoding: str
) -> None:
    (study,) = make_ct(tmp_path, studies=1, slices=4, seed=time.time_ns() // 1000 % 10**9, rows=rows)
    uid = study[0].study
    assert archive.stow([i.path.read_bytes() for i in study]).status_code == 200
    wait_until(lambda: archive.instance_count(uid) == 4, 60, "the study is queryable")
    # Read once while it is hot: the door must find the copy also when it believed to know where the pack lies.
    assert archive.original(study[0].study, study[0].series, study[0].sop) == study[0].path.read_bytes()

    def archived() -> list[str]:
        packs = archive.json(f"/studies/{uid}")["stored_in"]
        return [p["pack_id"] for p in packs] if packs and all(p["archived"] for p in packs) else []

    packs = wait_until(archived, 120, "the packs are archived")
    # No longer in a spool of this machine: what is hot is in S3.
    for role in ("api", "gateway"):
        for pack in packs:
            (whole.settings(role).spool(role) / "packs" / f"{pack}.tar").unlink(missing_ok=True)
    for i in study:
        assert archive.original(i.study, i.series, i.sop) == i.path.read_bytes()

    settings = whole.settings("admin")
    client = s3.client(settings)
    # Only the owner's key gets past the bucket's policy.
    keys = [{"Key": key} for pack in packs for key in (pack_key(pack, encoding), manifest_key(pack))]
    gone = client.delete_objects(Bucket=settings.bucket_packs, Delete={"Objects": keys})  # type: ignore[typeddict-item]
    assert not gone.get("Errors")
    client.close()

    for i in study:
        assert archive.original(i.study, i.series, i.sop) == i.path.read_bytes()
    metadata = archive.json(f"/dicom-web/studies/{uid}/metadata")
    assert {m["00080018"]["Value"][0] for m in metadata} == {i.sop for i in study}
    assert "sijil_archive_reads_total" in archive.get("/metrics", "*/*").text
