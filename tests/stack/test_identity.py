"""Who calls, on the real servers: tokens, scopes from facts on the log, break-glass, a session on both ports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.identity import derived_id
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack

pytestmark = pytest.mark.connected

SITE, OTHER = "CAI-7", "ALX-7"
BOUNDARY = "sijil-test"


class Door:
    """The HTTP door of an archive, asked in many roles."""

    def __init__(self, whole: LocalStack) -> None:
        settings = whole.settings("operator")
        self.whole = whole
        self.base = f"http://{settings.http_host}:{settings.http_port}"
        self.viewer = f"http://{settings.http_host}:{settings.viewer_port}"

    def token(self, role: str, *options: str) -> dict[str, str]:
        """As the command prints it."""
        done = self.whole.sijil("token", role, *options)
        assert done.returncode == 0, done.stderr
        return {"Authorization": f"Bearer {done.stdout.strip()}"}

    def ask(self, who: dict[str, str], path: str, body: Any = None) -> httpx.Response:
        method = "GET" if body is None else "POST"
        return httpx.request(method, self.base + path, headers=who, json=body, timeout=30)


@pytest.fixture
def study(whole: LocalStack, archive: Archive, tmp_path: Path) -> str:
    """One study, sent by the gateway of SITE with its own token."""
    door = Door(whole)
    (instances,) = make_ct(tmp_path, studies=1, slices=2, seed=70707, rows=32)
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + i.path.read_bytes() + b"\r\n" for i in instances) + f"--{BOUNDARY}--\r\n".encode()
    kind = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
    who = door.token("gateway", "--site", SITE, "--service", "gw-7")
    sent = httpx.post(f"{door.base}/dicom-web/studies", content=body, headers=who | kind, timeout=30)
    assert sent.status_code == 200
    uid: str = instances[0].study
    wait_until(lambda: archive.instance_count(uid) == 2, 60, "the study is queryable")
    return uid


def test_scopes_are_computed_from_what_the_log_says(whole: LocalStack, study: str) -> None:
    door = Door(whole)
    images, status = f"/dicom-web/studies/{study}", f"/studies/{study}"
    here, there = (door.token("technician", "--site", s) for s in (SITE, OTHER))
    assert [door.ask(here, p).status_code for p in (images, status)] == [200, 200]
    assert [door.ask(there, p).status_code for p in (images, status)] == [403, 403]
    found = f"/dicom-web/studies?StudyInstanceUID={study}"
    assert [len(door.ask(who, found).json()) for who in (here, there)] == [1, 0]

    admin = door.token("administrator")
    key = door.ask(admin, status).json()["patient_key"]
    treating, other = (door.token("doctor", "--person", p) for p in ("dr-7a", "dr-7b"))
    assert door.ask(treating, images).status_code == 403
    assert door.ask(admin, f"/patients/{key}/treating", {"person_id": "dr-7a"}).status_code == 201
    wait_until(lambda: door.ask(treating, images).status_code == 200, 30, "the statement holds")
    assert len(door.ask(treating, "/dicom-web/studies").json()) == 1

    assert door.ask(other, images).status_code == 403
    opened = door.ask(other, "/emergency", {"study_uid": study, "words": "Found unconscious in the street"})
    assert opened.status_code == 201
    assert door.ask(other, images).status_code == 200
    mine, theirs = (door.token("patient", "--patient", k) for k in (key, "k1:" + "A" * 43))
    trail = f"/patients/{key}/accesses"
    assert door.ask(theirs, trail).status_code == 403

    def told() -> bool:
        rows = door.ask(mine, trail).json()["accesses"]
        return {"granted", "denied", "emergency"} <= {r["outcome"] for r in rows}

    wait_until(told, 30, "the patient's own trail says all of it")
    operator = door.token("operator")
    assert door.ask(operator, images).json()["reason"] == "role"
    assert door.ask(operator, "/metrics").status_code == 200


def test_a_browser_s_session_is_good_on_the_viewer_s_port_too(whole: LocalStack, study: str) -> None:
    door = Door(whole)
    lines = (whole.home / "secrets" / "users.txt").read_text().splitlines()
    password = next(line.split("\t")[1] for line in lines if line.startswith("administrator\t"))
    with httpx.Client(timeout=30) as browser:
        form = browser.get(f"{door.base}/login?back=/me", follow_redirects=True)
        hidden = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.text))
        given = {**hidden, "username": "administrator", "password": password}
        done = browser.post(f"{door.base}/oidc/authorize", data=given, follow_redirects=True)
        assert (done.json()["name"], done.json()["role"]) == ("administrator", "administrator")
        assert done.json()["actor"] == "person:" + derived_id("person", "embedded", "administrator")
        images = browser.get(f"{door.viewer}/dicom-web/studies/{study}/metadata")
        assert images.status_code == 200
        row = browser.get(f"{door.base}/studies/{study}").json()
        assert row["study_uid"] == study
        assert browser.post(f"{door.base}/logout").status_code == 303
        assert not browser.cookies.get("sijil")
