"""The Objects port on S3.

An object is put once: `If-None-Match: *`, its SHA-256 in the request (the service compares) and in the user metadata
`sha256` (we compare, when a put finds the key taken). On SeaweedFS 4.48 all of this holds, also for multipart uploads;
its CopyObject ignores Object Lock headers, so a copy is locked by a request of its own, after its bytes were verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra import faults, s3_parts
from infra.ports import ObjectInfo
from infra.presigned import Presigned
from infra.s3 import CLIENT_ERRORS, DEADLINE_S, Taken, base64_of, call, client, mapped
from infra.settings import Settings
from schemas.errors import Defect, NotFound

MULTIPART_BYTES = 64 * 1024 * 1024
PART_BYTES = 32 * 1024 * 1024
COPY_BYTES_MAX = 5 * 1024**3
"""Most that S3 copies by one request."""
READ_BYTES = 1024 * 1024

Where = tuple[str, str]
"""Bucket, key."""


class S3Objects:
    """One S3 service, one identity. Methods may be called from any thread; `stream` from any event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        deadline_s: float = DEADLINE_S,
        multipart_bytes: int = MULTIPART_BYTES,
        part_bytes: int = PART_BYTES,
        copy_bytes_max: int = COPY_BYTES_MAX,
    ) -> None:
        """Connects at the first call. A call repeats what is Transient until `deadline_s` has passed."""
        self._s3 = client(settings)
        self._deadline_s = deadline_s
        self._multipart_bytes = multipart_bytes
        self._part_bytes = part_bytes
        self._copy_bytes_max = copy_bytes_max
        self._presigned = Presigned(self._sign, settings.s3_ca_file)

    def put(self, bucket: str, key: str, body: bytes | Path, *, sha256: str, content_type: str = "") -> ObjectInfo:
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        extra: dict[str, Any] = {"Metadata": {"sha256": sha256}}
        if content_type:
            extra["ContentType"] = content_type
        try:
            if isinstance(body, Path) and size > self._multipart_bytes:
                self._free(bucket, key)
                version = s3_parts.put(self._s3, (bucket, key), body, self._part_bytes, sha256=sha256, extra=extra)
            else:
                version = self._put_whole(bucket, key, body, sha256, extra)
        except Taken:
            info = self.head(bucket, key)
            if info.metadata.get("sha256") != sha256:
                raise Defect(f"{bucket}/{key} is there with other content") from None
            return info
        return ObjectInfo(size, version, {"sha256": sha256})

    def _put_whole(self, bucket: str, key: str, body: bytes | Path, sha256: str, extra: dict[str, Any]) -> str:
        checksum = base64_of(bytes.fromhex(sha256))

        def send(data: Any) -> str:
            answer = self._s3.put_object(
                Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", ChecksumSHA256=checksum, **extra
            )
            return answer.get("VersionId", "")

        def attempt() -> str:
            if isinstance(body, bytes):
                return send(body)
            with body.open("rb") as file:
                return send(file)

        return call(f"put {bucket}/{key}", attempt, self._deadline_s)

    def _free(self, bucket: str, key: str) -> None:
        """Raises Taken before gigabytes are sent for nothing."""
        try:
            self.head(bucket, key)
        except NotFound:
            return
        raise Taken

    def get(self, bucket: str, key: str, *, version_id: str = "") -> bytes:
        def attempt() -> bytes:
            return self._s3.get_object(Bucket=bucket, Key=key, **_versioned(version_id))["Body"].read()

        return call(f"get {bucket}/{key}", attempt, self._deadline_s)

    def get_range(self, bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> bytes:
        if length == 0:
            return b""
        wanted = f"bytes={offset}-{offset + length - 1}"

        def attempt() -> bytes:
            return self._s3.get_object(Bucket=bucket, Key=key, Range=wanted, **_versioned(version_id))["Body"].read()

        data = call(f"get {bucket}/{key}", attempt, self._deadline_s)
        if len(data) != length:
            raise Defect(f"s3: {bucket}/{key} ends before byte {offset + length}")
        return data

    def chunks(self, bucket: str, key: str, *, version_id: str = "") -> Iterator[bytes]:
        step = f"get {bucket}/{key}"
        versioned = _versioned(version_id)
        answer = call(step, lambda: self._s3.get_object(Bucket=bucket, Key=key, **versioned), self._deadline_s)
        try:
            yield from answer["Body"].iter_chunks(READ_BYTES)
        except CLIENT_ERRORS as e:
            raise mapped(e, step) from e
        finally:
            answer["Body"].close()

    async def stream(
        self, bucket: str, key: str, offset: int, length: int, *, version_id: str = ""
    ) -> AsyncIterator[bytes]:
        async for chunk in self._presigned.stream((bucket, key, version_id), offset, length):
            yield chunk

    def head(self, bucket: str, key: str, *, version_id: str = "") -> ObjectInfo:
        versioned = _versioned(version_id)
        answer = call(
            f"head {bucket}/{key}",
            lambda: self._s3.head_object(Bucket=bucket, Key=key, **versioned),
            self._deadline_s,
        )
        locked = answer.get("ObjectLockMode") == "COMPLIANCE"
        return ObjectInfo(
            answer["ContentLength"],
            answer.get("VersionId", ""),
            answer.get("Metadata", {}),
            _rfc3339(answer["ObjectLockRetainUntilDate"]) if locked else "",
        )

    def versions(self, bucket: str, key: str) -> list[str]:
        """Ids of all versions of a key, newest first."""
        step = f"list versions {bucket}/{key}"
        answer = call(step, lambda: self._s3.list_object_versions(Bucket=bucket, Prefix=key), self._deadline_s)
        return [v["VersionId"] for v in answer.get("Versions", []) if v["Key"] == key]

    def list(self, bucket: str, prefix: str) -> Iterable[str]:
        step = f"list {bucket}/{prefix}"
        token = ""
        while True:
            more: dict[str, Any] = {"ContinuationToken": token} if token else {}
            page = call(step, self._list_page(bucket, prefix, more), self._deadline_s)
            yield from (entry["Key"] for entry in page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            token = page["NextContinuationToken"]

    def _list_page(self, bucket: str, prefix: str, more: dict[str, Any]) -> Any:
        return lambda: self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix, **more)

    # ------------------------------------------------------------------------------------------------ locked copies

    def copy_locked(self, source: Where, target: Where, *, sha256: str, retain_until: str) -> ObjectInfo:
        """As the port says, in an order that a crash can cut anywhere: 1 copy, 2 verify, 3 lock.

        So a locked version is a verified one and is taken as it is; an unlocked one is verified and locked.
        """
        there = self._copied(target, sha256)
        version = there.version_id if there else self._copy(source, target, sha256)  # Step 1
        faults.point("objects.after-copy")
        if not (there and there.retain_until):
            self._verify(target, version, sha256)  # Step 2
        faults.point("objects.after-verify")
        if not (there and there.locked_until(retain_until)):
            self._lock(target, version, retain_until)  # Step 3
        faults.point("objects.after-lock")
        info = self.head(*target, version_id=version)
        if not info.locked_until(retain_until):
            raise Defect(f"{target[0]}/{target[1]} could not be locked")
        return info

    def _copied(self, target: Where, sha256: str) -> ObjectInfo | None:
        """The version of the target with that SHA-256 and the latest lock, if any."""
        versions = [self.head(*target, version_id=i) for i in self.versions(*target)]
        same = [v for v in versions if v.metadata.get("sha256") == sha256]
        return max(same, key=lambda v: v.retain_until, default=None)

    def _copy(self, source: Where, target: Where, sha256: str) -> str:
        size = self.head(*source).size
        metadata = {"sha256": sha256}
        if size > self._copy_bytes_max:
            extra = {"Metadata": metadata}
            return s3_parts.copy(self._s3, source, target, size, self._copy_bytes_max, extra=extra)
        answer = call(
            f"copy {target[0]}/{target[1]}",
            lambda: self._s3.copy_object(
                Bucket=target[0],
                Key=target[1],
                CopySource={"Bucket": source[0], "Key": source[1]},
                MetadataDirective="REPLACE",
                Metadata=metadata,
            ),
            self._deadline_s,
        )
        return answer["VersionId"]

    def _verify(self, target: Where, version_id: str, sha256: str) -> None:
        digest = hashlib.sha256()
        for chunk in self.chunks(*target, version_id=version_id):
            digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise Defect(f"the copy {target[0]}/{target[1]} has not the checksum expected")

    def _lock(self, target: Where, version_id: str, retain_until: str) -> None:
        until = datetime.fromisoformat(retain_until)
        call(
            f"lock {target[0]}/{target[1]}",
            lambda: self._s3.put_object_retention(
                Bucket=target[0],
                Key=target[1],
                VersionId=version_id,
                Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until},
            ),
            self._deadline_s,
        )

    # ------------------------------------------------------------------------------------------------ connections

    def _sign(self, address: tuple[str, str, str], seconds: int) -> str:
        bucket, key, version_id = address
        parameters = {"Bucket": bucket, "Key": key, **_versioned(version_id)}
        return self._s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)

    async def close_streams(self) -> None:
        """Close the connections that `stream` keeps for the running event loop."""
        await self._presigned.close()

    def close(self) -> None:
        """Let go of the connections of the other calls."""
        self._s3.close()


def _versioned(version_id: str) -> dict[str, Any]:
    return {"VersionId": version_id} if version_id else {}


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
