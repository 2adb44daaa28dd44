"""Packs that still lie in the spool are read there, and only while they do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import spooled
from infra.spooled import Spooled
from schemas.pack import IDENTITY
from tests.unit.consumers.archive import MemoryArchive, part10

ONE = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"


@pytest.fixture
def archive(tmp_path: Path) -> MemoryArchive:
    found = MemoryArchive(IDENTITY)
    found.settings = replace(found.settings, home=tmp_path)
    return found


def kept(archive: MemoryArchive, pack_id: str, role: str = "gateway") -> Path:
    """The pack's file, put into a spool."""
    path = archive.settings.spool(role) / "packs" / f"{pack_id}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive.tars[pack_id])
    return path


def reads_of_s3(archive: MemoryArchive) -> list[int]:
    read: list[int] = []
    stream = archive.objects.stream

    def counted(bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> AsyncIterator[bytes]:
        read.append(length)
        return stream(bucket, key, offset, length, version_id=version_id)

    archive.objects.stream = counted  # type: ignore[method-assign]
    return read


@pytest.mark.parametrize("role", ["api", "gateway"])
@pytest.mark.parametrize("nowait", [0, getattr(os, "RWF_NOWAIT", 0)])
def test_the_spool_first(archive: MemoryArchive, role: str, nowait: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "NOWAIT", nowait)
    data = part10("1.2.3.1.1", rows=700, columns=1000, pixels=bytes(n % 251 for n in range(1_400_000)))
    path = kept(archive, archive.store([data]), role)
    read = reads_of_s3(archive)
    assert archive.get(ONE, accept="application/dicom").content == data
    assert read == []
    path.unlink()
    assert archive.get(ONE, accept="application/dicom").content == data
    assert read == [len(data)]


def test_not_a_file_of_another_size(archive: MemoryArchive) -> None:
    data = part10("1.2.3.1.1")
    path = kept(archive, archive.store([data]))
    path.write_bytes(path.read_bytes()[:-1])
    assert archive.get(ONE, accept="application/dicom").content == data


def test_what_a_broken_disk_keeps_back_comes_from_s3(archive: MemoryArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    data = part10("1.2.3.1.1", rows=700, columns=1000, pixels=bytes(n % 251 for n in range(1_400_000)))
    kept(archive, archive.store([data]))
    preadv, calls = os.preadv, []

    def broken(*args: Any) -> int:
        calls.append(args)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return preadv(*args)

    monkeypatch.setattr(os, "preadv", broken)
    assert archive.get(ONE, accept="application/dicom").content == data


def test_nothing_stays_open(archive: MemoryArchive, tmp_path: Path) -> None:
    pack = archive.store([part10("1.2.3.1.1")])
    path = kept(archive, pack)
    found = Spooled([path.parent, path.parent])
    descriptor = found.open(pack, path.stat().st_size)
    assert descriptor is not None

    async def read() -> bytes:
        return b"".join([bytes(c) async for c in spooled.chunks(descriptor, 5, 10)])

    assert asyncio.run(read()) == path.read_bytes()[5:15]
    os.close(descriptor)
    assert found.open("another", 1) is None
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        archive.get(ONE)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
