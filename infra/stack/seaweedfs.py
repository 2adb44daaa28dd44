"""SeaweedFS: master, volume server, filer and S3 gateway in one process, loopback only, with a key per role.

The S3 door asks for keys; the doors behind it (filer, volumes) ask for tokens that only this process can sign, or any
user of the machine could read packs there.

With `-fsync` an object's bytes are on disk when its PUT is answered (seen with strace). SeaweedFS syncs neither the
index of its volumes nor the filer's own database: a power cut, not a crash, may forget the last seconds' objects. The
gateways' spools keep committed packs for that case; production has an S3 service that does not forget.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.settings import Role, Settings
from infra.stack import credentials, install, probes, trial_ca
from infra.stack.credentials import S3_ACTIONS, Credentials
from infra.stack.errors import StackError

_TOKENS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
NICE = 10
"""Senders come first: what they wait for is in the spool, and its way into S3 takes most of a small machine. Under load
four associations are acknowledged a third faster for it; when nobody else wants a processor, it has them all.
"""
FSYNC = "fs.configure -locationPrefix=/buckets/ -fsync -apply"


def folder(settings: Settings) -> Path:
    """Where its processes run: SeaweedFS looks for security.toml there and nowhere else that is ours."""
    return settings.home / "secrets"


def prepare(settings: Settings) -> None:
    """The identities of the S3 gateway. Idempotent."""
    install.weed()
    (settings.home / "data/seaweedfs").mkdir(parents=True, exist_ok=True)
    security = folder(settings) / "security.toml"
    if not security.exists():
        credentials.write_private(security, "".join(f'[{name}]\nkey = "{secrets.token_hex(32)}"\n' for name in _TOKENS))
    write_identities(settings, credentials.ensure(settings.home))


def write_identities(settings: Settings, roles: Mapping[Role, Credentials]) -> None:
    """The file of `-s3.config`."""
    credentials.write_private(_identities_file(settings), json.dumps(identities(settings, roles), indent=1))


def identities(settings: Settings, roles: Mapping[Role, Credentials]) -> Mapping[str, object]:
    """`-s3.config`: one identity per role with the actions it needs and no more; admin owns the buckets."""
    return {
        "identities": [
            {
                "name": who.cassandra_username.replace("_", "-"),
                "credentials": [{"accessKey": who.s3_access_key, "secretKey": who.s3_secret_key}],
                "actions": _actions(settings, role),
            }
            for role, who in roles.items()
        ]
    }


def _actions(settings: Settings, role: Role) -> list[str]:
    if role == "admin":
        return ["Admin", "Read", "Write", "List", "Tagging"]
    return [
        f"{action}:{getattr(settings, bucket)}" for bucket, actions in S3_ACTIONS[role].items() for action in actions
    ]


def _identities_file(settings: Settings) -> Path:
    return settings.home / "secrets/seaweedfs-s3.json"


def ports(settings: Settings) -> dict[str, int]:
    """Flag of `weed server` → port. Each gRPC port is set, or it would be the other one plus 10000."""
    base = settings.stack_s3_base_port
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    return {
        "s3.port": settings.stack_s3_port,
        **dict(zip((*names, "s3.port.grpc"), range(base, base + 7), strict=True)),
    }


def command(settings: Settings) -> Sequence[str]:
    """The server's command line."""

    flags = {
        "dir": settings.home / "data/seaweedfs",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **ports(settings),
        "master.telemetry": "false",
        "master.electionTimeout": "500ms",  # alone, it would wait 10 s for votes of others
        "master.volumeSizeLimitMB": 1024,
        "volume.max": 0,
        "volume.index": "leveldb",
        "volume.preStopSeconds": 0,
        "volume.readMode": "local",
        "filer": "true",
        "filer.localSocket": "../run/filer.sock",  # relative to secrets/: a socket path may have 107 bytes at most
        "filer.exposeDirectoryData": "false",
        "s3": "true",
        "s3.config": _identities_file(settings),
        "s3.localSocket": "../run/s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
        "s3.allowDeleteBucketNotEmpty": "false",
        "s3.iam": "false",
    }
    if settings.stack_tls:
        files = trial_ca.for_servers(settings)
        flags |= {"s3.cert.file": files.certificate, "s3.key.file": files.key}
    return [
        install.weed(),
        "-logtostderr=true",
        "-v=0",
        "server",
        *(f"-{k}={v}" for k, v in flags.items()),
    ]


def probe(settings: Settings) -> None:
    """Raises NotReady until a volume server has joined and the S3 gateway lists buckets for the admin key."""
    probes.seaweedfs_volumes("127.0.0.1", ports(settings)["master.port"])
    admin = credentials.ensure(settings.home)["admin"]
    trust = probes.trust(settings.s3_ca_file)
    probes.s3(settings.s3_endpoint, settings.s3_region, admin.s3_access_key, admin.s3_secret_key, trust=trust)


def finish(settings: Settings) -> None:
    """Make every write to a bucket wait for its fsync; kept by the filer, so asked for once. Raises StackError."""
    marker = settings.home / "data/seaweedfs/fsync.configured"
    if marker.exists():
        return
    by_flag = ports(settings)
    shell = [install.weed(), "shell", f"-master=127.0.0.1:{by_flag['master.port']}.{by_flag['master.port.grpc']}"]
    shell.append(f"-filer=127.0.0.1:{by_flag['filer.port']}.{by_flag['filer.port.grpc']}")
    done = subprocess.run(
        shell,
        input=f"{FSYNC}\nexit\n",
        cwd=folder(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode or '"fsync"' not in done.stdout.replace(" ", ""):
        raise StackError(f"SeaweedFS did not take its fsync setting: {(done.stderr or done.stdout).strip()[-200:]}")
    marker.touch()
