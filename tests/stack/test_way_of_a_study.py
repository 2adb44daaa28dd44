"""The whole way on the real stack: DCMTK sends, clients find, the bytes are the same, the trail names the read."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.archive import Archive, dataset, dcmtk, wait_until
from tests.bench.corpus import make_ct

pytestmark = pytest.mark.connected


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def received_by_dcmtk(folder: Path, files: list[Path]) -> dict[str, bytes]:
    """SOP Instance UID → dataset bytes that DCMTK's storescp gets from the same storescu command."""
    folder.mkdir()
    port = free_port()
    scp = subprocess.Popen([dcmtk("storescp"), "-od", str(folder), "+B", str(port)])
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        send = [dcmtk("storescu"), "-aec", "SIJIL", "127.0.0.1", str(port), *map(str, files)]
        subprocess.run(send, check=True, env={**os.environ, "TCP_NODELAY": "1"}, timeout=60)
    finally:
        scp.send_signal(signal.SIGTERM)
        scp.wait(10)
    # storescp names a file MODALITY.UID
    return {p.name.partition(".")[2]: dataset(p.read_bytes()) for p in folder.iterdir()}


@pytest.mark.client("dcmtk storescu", feature="C-STORE")
def test_storescu_then_find_fetch_and_trail(archive: Archive, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path / "ct", studies=1, slices=24, seed=71)
    uid, files = study[0].study, [i.path for i in study]
    sent = archive.storescu(files)
    ended = time.monotonic()
    assert sent.returncode == 0, sent.stderr
    wait_until(lambda: archive.instance_count(uid) == 24, 20, "the study is queryable")
    print(f"queryable {time.monotonic() - ended:.2f} s after storescu ended")  # noqa: T201  a figure, not a check

    expected = received_by_dcmtk(tmp_path / "scp", files)
    assert len(expected) == 24
    for i in study:
        assert dataset(archive.original(i.study, i.series, i.sop)) == expected[i.sop]

    def read_is_named() -> bool:
        trail = archive.json(f"/studies/{uid}/accesses")
        rows = trail if isinstance(trail, list) else trail["accesses"]
        return any(r["outcome"] == "granted" and r["actor"] == "http:127.0.0.1" for r in rows)

    wait_until(read_is_named, 20, "the access trail names the read")


def test_stow_is_found_once_and_a_repeat_changes_nothing(archive: Archive, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path, studies=1, slices=12, seed=72, rows=64)
    uid, files = study[0].study, [i.path.read_bytes() for i in study]
    for _ in range(2):
        answer = archive.stow(files)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["00081199"]["Value"]) == 12
    wait_until(lambda: archive.instance_count(uid) == 12, 20, "the study is queryable")
    wait_until(archive.drained, 20, "both packs are stored")
    time.sleep(1)
    assert archive.instance_count(uid) == 12
    assert sorted(archive.instance_uids(uid)) == sorted(i.sop for i in study)
    for i, sent in zip(study, files, strict=True):
        assert archive.original(i.study, i.series, i.sop) == sent, "STOW-RS keeps the file verbatim"


def test_a_study_is_completed_and_a_late_instance_reopens_it(archive: Archive, tmp_path: Path) -> None:
    (study,) = make_ct(tmp_path, studies=1, slices=3, seed=73, rows=32)
    uid = study[0].study
    assert archive.stow([i.path.read_bytes() for i in study[:2]]).status_code == 200
    wait_until(lambda: archive.json(f"/studies/{uid}")["state"] == "complete", 30, "the study is complete")
    assert archive.stow([study[2].path.read_bytes()]).status_code == 200
    wait_until(lambda: archive.json(f"/studies/{uid}")["state"] == "reopened", 30, "the study is reopened")
    wait_until(lambda: archive.json(f"/studies/{uid}")["state"] == "complete", 30, "the study is complete again")
    assert archive.instance_count(uid) == 3
