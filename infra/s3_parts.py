"""Objects too large for one request: uploads and server-side copies in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.s3 import CLIENT_ERRORS, base64_of, call
from schemas.errors import Defect

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PARTS_MAX = 10_000

Where = tuple[str, str]
"""Bucket, key."""


def put(s3: S3Client, where: Where, path: Path, part_bytes: int, *, sha256: str, extra: Mapping[str, Any]) -> str:
    """Version of the object made of a file, one part in memory at a time. Raises Taken if the key is taken.

    The whole is hashed on its way: Defect for a file that is not what `sha256` says.
    """
    size = max(part_bytes, -(-path.stat().st_size // PARTS_MAX))

    def parts(upload: str) -> Iterator[dict[str, Any]]:
        whole = hashlib.sha256()
        with path.open("rb") as file:
            for number, data in enumerate(iter(lambda: file.read(size), b""), 1):
                whole.update(data)
                yield _put_part(s3, where, upload, number, data)
        if whole.hexdigest() != sha256:
            raise Defect(f"{where[0]}/{where[1]}: the bytes are not those of the checksum given")

    return _upload(s3, where, parts, {"ChecksumAlgorithm": "SHA256", **extra}, {"IfNoneMatch": "*"})


def copy(s3: S3Client, source: Where, where: Where, size: int, part_bytes: int, *, extra: Mapping[str, Any]) -> str:
    """Version of a server-side copy."""

    def parts(upload: str) -> Iterator[dict[str, Any]]:
        for number, offset in enumerate(range(0, size, part_bytes), 1):
            last = min(offset + part_bytes, size) - 1
            yield _copy_part(s3, source, where, upload, number, f"bytes={offset}-{last}")

    return _upload(s3, where, parts, extra, {})


Parts = Callable[[str], Iterator[dict[str, Any]]]
"""Upload id → its parts, as each is stored."""


def _upload(s3: S3Client, where: Where, parts: Parts, begin: Mapping[str, Any], complete: Mapping[str, Any]) -> str:
    bucket, key = where
    _abort_leftovers(s3, where)
    step = f"put {bucket}/{key}"
    upload = call(step, lambda: s3.create_multipart_upload(Bucket=bucket, Key=key, **begin))["UploadId"]
    try:
        done: Any = list(parts(upload))
        answer = call(
            step,
            lambda: s3.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done}, **complete
            ),
        )
    except BaseException:
        _abort(s3, where, upload)
        raise
    return answer.get("VersionId", "")


def _put_part(s3: S3Client, where: Where, upload: str, number: int, data: bytes) -> dict[str, Any]:
    bucket, key = where
    checksum = base64_of(hashlib.sha256(data).digest())
    answer = call(
        f"put {bucket}/{key} part {number}",
        lambda: s3.upload_part(
            Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=data, ChecksumSHA256=checksum
        ),
    )
    return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}


def _copy_part(s3: S3Client, source: Where, where: Where, upload: str, number: int, wanted: str) -> dict[str, Any]:
    bucket, key = where
    origin: Any = {"Bucket": source[0], "Key": source[1]}
    answer = call(
        f"copy {bucket}/{key} part {number}",
        lambda: s3.upload_part_copy(
            Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, CopySource=origin, CopySourceRange=wanted
        ),
    )
    return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}


def _abort_leftovers(s3: S3Client, where: Where) -> None:
    """Parts of an upload that died with its process. Nobody else puts this key: it holds the id of a pack."""
    bucket, key = where
    answer = call(f"list uploads {bucket}/{key}", lambda: s3.list_multipart_uploads(Bucket=bucket, Prefix=key))
    for upload in answer.get("Uploads", []):
        if upload["Key"] == key:
            _abort(s3, where, upload["UploadId"])


def _abort(s3: S3Client, where: Where, upload: str) -> None:
    try:
        s3.abort_multipart_upload(Bucket=where[0], Key=where[1], UploadId=upload)
    except CLIENT_ERRORS:
        return  # it costs space until the next put of this key aborts it, nothing else
