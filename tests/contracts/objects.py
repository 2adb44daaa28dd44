"""What every implementation of the Objects port promises. `test_objects.py` says how each is made."""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.ports import Objects
from schemas.errors import Defect, NotFound


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def soon(seconds: int) -> str:
    """A moment for a lock, whole seconds as S3 keeps them."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")


class ObjectsContract(ABC):
    bucket = "sijil-documents"
    archive = "sijil-archive"

    @abstractmethod
    @pytest.fixture
    def objects(self) -> Objects:
        """The port; buckets as in `infra.buckets`."""

    @pytest.fixture
    def key(self, request: pytest.FixtureRequest) -> str:
        """A key of the test's own, with what keys may hold."""
        return f"contract/{request.node.name}/{datetime.now(UTC).timestamp()} ä+&?.bin"

    def put(self, objects: Objects, key: str, data: bytes) -> str:
        return objects.put(self.bucket, key, data, sha256=sha256_of(data)).version_id

    # ------------------------------------------------------------------------------------------------ put

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 300])
    def test_what_was_put_is_there(self, objects: Objects, key: str, data: bytes) -> None:
        stored = objects.put(self.bucket, key, data, sha256=sha256_of(data), content_type="application/x-tar")
        assert (stored.size, stored.metadata["sha256"]) == (len(data), sha256_of(data))
        assert objects.head(self.bucket, key) == stored
        assert objects.get(self.bucket, key) == data
        assert objects.get(self.bucket, key, version_id=stored.version_id) == data
        assert b"".join(objects.chunks(self.bucket, key)) == data

    def test_a_file(self, objects: Objects, key: str, tmp_path: Path) -> None:
        data = bytes(range(256)) * 1000
        path = tmp_path / "pack.tar"
        path.write_bytes(data)
        assert objects.put(self.bucket, key, path, sha256=sha256_of(data)).size == len(data)
        assert objects.get(self.bucket, key) == data

    def test_again_with_the_same_content_is_the_same_object(self, objects: Objects, key: str) -> None:
        assert self.put(objects, key, b"pack") == self.put(objects, key, b"pack")

    def test_never_replaced(self, objects: Objects, key: str) -> None:
        self.put(objects, key, b"pack")
        with pytest.raises(Defect):
            self.put(objects, key, b"other")
        assert objects.get(self.bucket, key) == b"pack"

    def test_bytes_that_are_not_those_of_the_checksum(self, objects: Objects, key: str) -> None:
        with pytest.raises(Defect):
            objects.put(self.bucket, key, b"pack", sha256=sha256_of(b"other"))
        with pytest.raises(NotFound):
            objects.head(self.bucket, key)

    # ------------------------------------------------------------------------------------------------ get

    def test_not_there(self, objects: Objects, key: str) -> None:
        for call in (objects.get, objects.head):
            with pytest.raises(NotFound):
                call(self.bucket, key)
        with pytest.raises(NotFound):
            objects.get_range(self.bucket, key, 0, 1)
        with pytest.raises(NotFound):
            list(objects.chunks(self.bucket, key))
        with pytest.raises(NotFound):
            self.streamed(objects, key, 0, 1)
        self.put(objects, key, b"pack")
        with pytest.raises(NotFound):
            objects.get(self.bucket, key, version_id="00000000000000000000000000000000")

    @pytest.mark.parametrize(("offset", "length"), [(0, 10), (3, 4), (9, 1), (0, 0), (10, 0)])
    def test_ranges(self, objects: Objects, key: str, offset: int, length: int) -> None:
        self.put(objects, key, b"0123456789")
        expected = b"0123456789"[offset : offset + length]
        assert objects.get_range(self.bucket, key, offset, length) == expected
        assert self.streamed(objects, key, offset, length) == expected

    @pytest.mark.parametrize(("offset", "length"), [(0, 11), (9, 2), (10, 1), (50, 1)])
    def test_a_range_that_is_not_there_is_a_defect(self, objects: Objects, key: str, offset: int, length: int) -> None:
        self.put(objects, key, b"0123456789")
        with pytest.raises(Defect):
            objects.get_range(self.bucket, key, offset, length)
        with pytest.raises(Defect):
            self.streamed(objects, key, offset, length)

    def test_a_long_stream_comes_in_chunks(self, objects: Objects, key: str) -> None:
        data = bytes(range(251)) * 20_000
        self.put(objects, key, data)
        assert self.streamed(objects, key, 7, len(data) - 7) == data[7:]

    def streamed(self, objects: Objects, key: str, offset: int, length: int) -> bytes:
        async def collect() -> bytes:
            try:
                return b"".join([c async for c in objects.stream(self.bucket, key, offset, length)])
            finally:
                await objects.close_streams()

        return asyncio.run(collect())

    def test_a_stream_may_be_left(self, objects: Objects, key: str) -> None:
        data = bytes(3_000_000)
        self.put(objects, key, data)

        async def leave() -> None:
            async for _ in objects.stream(self.bucket, key, 0, len(data)):
                break
            await objects.close_streams()

        asyncio.run(leave())
        assert self.streamed(objects, key, 0, len(data)) == data

    # ------------------------------------------------------------------------------------------------ list

    def test_keys_come_in_order(self, objects: Objects, key: str) -> None:
        keys = [f"{key}/{n}" for n in ("b", "a/2", "a/1", "c")]
        for k in keys:
            self.put(objects, k, b"")
        self.put(objects, f"{key}-beside", b"")
        assert list(objects.list(self.bucket, f"{key}/")) == sorted(keys)
        assert list(objects.list(self.bucket, f"{key}/a/")) == [f"{key}/a/1", f"{key}/a/2"]
        assert list(objects.list(self.bucket, f"{key}/none")) == []

    # ------------------------------------------------------------------------------------------------ locked copies

    def test_a_locked_copy(self, objects: Objects, key: str) -> None:
        self.put(objects, key, b"pack")
        until = soon(2)
        copy = objects.copy_locked(
            (self.bucket, key), (self.archive, key), sha256=sha256_of(b"pack"), retain_until=until
        )
        assert (copy.size, copy.retain_until, copy.metadata["sha256"]) == (4, until, sha256_of(b"pack"))
        assert objects.head(self.archive, key, version_id=copy.version_id) == copy
        assert objects.get(self.archive, key, version_id=copy.version_id) == b"pack"

    def test_a_copy_that_is_there_is_taken(self, objects: Objects, key: str) -> None:
        self.put(objects, key, b"pack")
        until, later = soon(2), soon(4)

        def copy(retain_until: str) -> tuple[str, str]:
            info = objects.copy_locked(
                (self.bucket, key), (self.archive, key), sha256=sha256_of(b"pack"), retain_until=retain_until
            )
            return info.version_id, info.retain_until

        first = copy(until)
        assert copy(until) == first
        assert copy(later) == (first[0], later)
        assert copy(until) == (first[0], later)

    def test_a_copy_is_verified(self, objects: Objects, key: str) -> None:
        self.put(objects, key, b"pack")
        with pytest.raises(Defect):
            objects.copy_locked(
                (self.bucket, key), (self.archive, key), sha256=sha256_of(b"other"), retain_until=soon(2)
            )

    def test_nothing_to_copy(self, objects: Objects, key: str) -> None:
        with pytest.raises(NotFound):
            objects.copy_locked(
                (self.bucket, key), (self.archive, key), sha256=sha256_of(b"pack"), retain_until=soon(2)
            )
