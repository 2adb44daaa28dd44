"""The buckets: versioned for good, the archive locked, delete denied where a pack or the head of a chain lies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import s3
from infra.settings import Settings
from schemas.errors import Defect, Transient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


ATTEMPTS = 5
"""At a request about a bucket."""


@dataclass(frozen=True)
class Bucket:
    """What a bucket must be. All are versioned."""

    setting: str
    locked: bool
    """Object Lock: each copy gets its retention date when it is put."""
    undeletable: bool
    """A policy denies delete to every key in daily use (`policy`)."""


BUCKETS: tuple[Bucket, ...] = (
    Bucket("bucket_packs", locked=False, undeletable=True),
    Bucket("bucket_archive", locked=True, undeletable=True),
    Bucket("bucket_documents", locked=False, undeletable=False),
    Bucket("bucket_anchors", locked=False, undeletable=True),
)


def policy(bucket: Bucket, name: str) -> dict[str, Any]:
    """What is denied to everybody: whoever may write could do all of it otherwise (SeaweedFS's `Write` includes it).

    On SeaweedFS the owner's key gets past it by DeleteObjects and by taking the policy away; no process uses that key.
    """
    protection = {
        "Sid": "ProtectionStays",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutBucketVersioning", "s3:PutLifecycleConfiguration"],
        "Resource": [f"arn:aws:s3:::{name}"],
    }
    objects = {
        "Sid": "NothingIsDeleted",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        "Resource": [f"arn:aws:s3:::{name}/*"],
    }
    return {"Version": "2012-10-17", "Statement": [protection, *([objects] if bucket.undeletable else [])]}


def ensure(settings: Settings, announce: Callable[[str], None] = lambda line: None) -> None:
    """Create what is missing, a lost policy too. Raises Defect for a bucket that is not right, Transient without S3."""
    client = s3.client(settings, attempts=ATTEMPTS)
    try:
        there = {b["Name"] for b in client.list_buckets()["Buckets"]}
        for bucket in BUCKETS:
            name: str = getattr(settings, bucket.setting)
            if name not in there:
                _create(client, name, bucket, settings.s3_region)
                announce(f"bucket created: {name}")
            _check(client, name, bucket)
            if not _denies(client, name, policy(bucket, name)):
                client.put_bucket_policy(Bucket=name, Policy=json.dumps(policy(bucket, name)))
                announce(f"bucket {name}: policy set")
    except (BotoCoreError, ClientError) as e:
        raise Transient(f"S3 at {settings.s3_endpoint}: {e}") from e
    finally:
        client.close()


def _create(client: S3Client, name: str, bucket: Bucket, region: str) -> None:
    where: dict[str, Any] = {}
    if region != "us-east-1":  # S3 refuses the default region as a constraint
        where["CreateBucketConfiguration"] = {"LocationConstraint": region}
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=bucket.locked, **where)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def _check(client: S3Client, name: str, bucket: Bucket) -> None:
    if client.get_bucket_versioning(Bucket=name).get("Status") != "Enabled":
        raise Defect(f"bucket {name} is not versioned: enable versioning")
    if bucket.locked:
        try:
            lock = client.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]
        except ClientError as e:
            raise Defect(f"bucket {name} has no Object Lock: it must be created with it") from e
        if lock.get("ObjectLockEnabled") != "Enabled":
            raise Defect(f"bucket {name} has no Object Lock: it must be created with it")


def _denies(client: S3Client, name: str, wanted: Mapping[str, Any]) -> bool:
    """Whether the bucket's policy has every statement of `wanted`; it may have more."""
    try:
        found = json.loads(client.get_bucket_policy(Bucket=name)["Policy"])
    except ClientError:
        return False
    there = [_shape(s) for s in found.get("Statement", [])]
    return all(_shape(s) in there for s in wanted["Statement"])


def _shape(statement: Mapping[str, Any]) -> tuple[Any, ...]:
    """A statement without its name, and whether a service gives one item as a list or not."""
    return (
        statement.get("Effect"),
        str(statement.get("Principal")).replace("{'AWS': '*'}", "*"),
        frozenset(_listed(statement.get("Action"))),
        frozenset(_listed(statement.get("Resource"))),
        "Condition" in statement,
    )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
