"""The Objects contract, in memory and on S3; what only a server can show."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from infra import s3
from infra.memory import MemoryObjects
from infra.objects import S3Objects
from infra.ports import Objects
from infra.settings import Settings
from schemas.errors import Defect, NotFound, Transient
from tests.contracts.objects import ObjectsContract, sha256_of, soon

MIB = 1024 * 1024


class TestMemoryObjects(ObjectsContract):
    @pytest.fixture
    def objects(self) -> Objects:
        return MemoryObjects()


@pytest.fixture(scope="module")
def real(admin: Settings) -> Iterator[S3Objects]:
    """Parts of 5 MiB, the smallest S3 allows, above 6 MiB, so that the tests need not move gigabytes."""
    objects = S3Objects(admin, multipart_bytes=6 * MIB, part_bytes=5 * MIB, copy_bytes_max=6 * MIB)
    yield objects
    objects.close()


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, str]:
    """(file of 13 MiB: three parts, its SHA-256)."""
    data = hashlib.shake_128(b"sijil").digest(13 * MIB)
    path = tmp_path / "large.tar"
    path.write_bytes(data)
    return path, sha256_of(data)


@pytest.mark.connected
class TestS3Objects(ObjectsContract):
    @pytest.fixture
    def objects(self, real: S3Objects) -> Objects:
        return real

    def test_a_large_file_goes_in_parts(self, objects: Objects, key: str, large: tuple[Path, str]) -> None:
        path, sha256 = large
        stored = objects.put(self.bucket, key, path, sha256=sha256)
        assert objects.head(self.bucket, key) == stored
        assert sha256_of(objects.get(self.bucket, key)) == sha256
        assert objects.put(self.bucket, key, path, sha256=sha256) == stored
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(Defect):
            objects.put(self.bucket, key, path, sha256=sha256_of(path.read_bytes()))
        assert sha256_of(objects.get(self.bucket, key)) == sha256

    def test_a_large_file_that_changed_is_not_stored(self, objects: Objects, key: str, large: tuple[Path, str]) -> None:
        with pytest.raises(Defect):
            objects.put(self.bucket, key, large[0], sha256="0" * 64)
        with pytest.raises(NotFound):
            objects.head(self.bucket, key)

    def test_what_a_dead_upload_left_is_removed(
        self, objects: Objects, key: str, large: tuple[Path, str], admin: Settings
    ) -> None:
        client = s3.client(admin)
        client.create_multipart_upload(Bucket=self.bucket, Key=key)
        objects.put(self.bucket, key, large[0], sha256=large[1])
        assert client.list_multipart_uploads(Bucket=self.bucket, Prefix=key).get("Uploads", []) == []

    def test_a_large_copy_goes_in_parts(self, objects: Objects, key: str, large: tuple[Path, str]) -> None:
        objects.put(self.bucket, key, large[0], sha256=large[1])
        copy = objects.copy_locked((self.bucket, key), (self.archive, key), sha256=large[1], retain_until=soon(2))
        assert sha256_of(objects.get(self.archive, key, version_id=copy.version_id)) == large[1]

    def test_a_copy_cut_before_its_lock_is_verified_and_locked(
        self, objects: Objects, key: str, admin: Settings
    ) -> None:
        """A crash between step 1 and step 3 left a version: no second one is made."""
        self.put(objects, key, b"pack")
        client = s3.client(admin)
        left = client.copy_object(
            Bucket=self.archive,
            Key=key,
            CopySource={"Bucket": self.bucket, "Key": key},
            MetadataDirective="REPLACE",
            Metadata={"sha256": sha256_of(b"pack")},
        )["VersionId"]
        copy = objects.copy_locked(
            (self.bucket, key), (self.archive, key), sha256=sha256_of(b"pack"), retain_until=soon(2)
        )
        assert copy.version_id == left

    def test_a_locked_version_cannot_be_removed(self, objects: Objects, key: str, admin: Settings) -> None:
        self.put(objects, key, b"pack")
        copy = objects.copy_locked(
            (self.bucket, key), (self.archive, key), sha256=sha256_of(b"pack"), retain_until=soon(60)
        )
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.client(admin).delete_object(Bucket=self.archive, Key=key, VersionId=copy.version_id)

    def test_a_stranger_is_refused_for_good(self, admin: Settings, key: str) -> None:
        stranger = S3Objects(replace(admin, s3_access_key="nobody"))
        with pytest.raises(Defect):
            stranger.get(self.bucket, key)
        with pytest.raises(Defect):
            self.streamed(stranger, key, 0, 1)
        stranger.close()


# ------------------------------------------------------------------------------------------------ S3 away


def nobody(endpoint: str) -> Settings:
    return Settings(s3_endpoint=endpoint, s3_access_key="nobody", s3_secret_key="nothing")  # noqa: S106


def test_a_service_that_is_away_is_transient() -> None:
    objects = S3Objects(nobody("http://127.0.0.1:9"), deadline_s=0.3)
    with pytest.raises(Transient):
        objects.head("bucket", "key")

    async def stream() -> None:
        with pytest.raises(Transient):
            async for _ in objects.stream("bucket", "key", 0, 10):
                pass
        await objects.close_streams()

    asyncio.run(stream())
    objects.close()


class _Breaking(BaseHTTPRequestHandler):
    """Answers ranges of 0..99, and drops the connection after 30 bytes of each, `breaks` times."""

    breaks = 2
    asked: list[str]

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        type(self).asked.append(wanted)
        first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
        data = bytes(range(first, last + 1))
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if len(self.asked) <= self.breaks:
            data = data[:30]
            self.close_connection = True
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(("breaks", "whole"), [(2, True), (3, False)])
def test_a_broken_stream_is_taken_up_where_it_broke(breaks: int, whole: bool) -> None:
    _Breaking.breaks, _Breaking.asked = breaks, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Breaking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    objects = S3Objects(nobody(f"http://127.0.0.1:{server.server_address[1]}"))

    async def collect() -> bytes:
        data = b""
        try:
            async for chunk in objects.stream("bucket", "key", 0, 100):
                data += chunk
        except Transient:
            assert not whole
        finally:
            await objects.close_streams()
        return data

    try:
        assert asyncio.run(collect()) == bytes(range(100 if whole else 90))
        assert _Breaking.asked == ["bytes=0-99", "bytes=30-99", "bytes=60-99"]
    finally:
        objects.close()
        server.shutdown()
        server.server_close()
        thread.join()
