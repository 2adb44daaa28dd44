"""The table of permissions on the running API: every role with a token of its own, at every operation that the API's
OpenAPI document names, about what is theirs, and about what is another's wherever that is another answer.

`tests/unit/consumers/test_permission_table.py` walks the whole table in memory.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.http_caller import OPEN
from infra.identity.minting import mint
from infra.settings import Settings
from schemas.roles import Role
from tests.archive import Archive, wait_until
from tests.bench.corpus import make_ct
from tests.local_stack import LocalStack
from tests.permission_table import Target, cases, reason_of

pytestmark = pytest.mark.connected

OWN_SITE, OTHER_SITE = "PERM-1", "PERM-2"
PERSON = "dr-permissions"


def bearer(settings: Settings, role: Role, **more: Any) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {mint(settings, role, **more)}"}


def target(archive: Archive, folder: Path, site: str, seed: int, report: str) -> Target:
    """A study that a gateway of the site has sent, and a report of it."""
    (instances,) = make_ct(folder / site, studies=1, slices=1, seed=seed, rows=32)
    uid = str(instances[0].study)
    sent = httpx.post(
        f"{archive.base}/dicom-web/studies",
        content=instances[0].path.read_bytes(),
        headers={
            "Content-Type": "application/dicom",
            "Accept": "application/dicom+json",
            **bearer(archive.settings, Role.GATEWAY, sites=(site,), service=f"gateway-{site}"),
        },
        timeout=60,
    )
    assert sent.status_code == 200, sent.text
    document = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "code": {"text": "CT"},
        "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}],
    }
    issued = httpx.post(
        f"{archive.base}/reports",
        content=json.dumps(document),
        headers={"Content-Type": "application/fhir+json", "Report-Id": report},
        timeout=60,
    )
    assert issued.status_code in (200, 201), issued.text
    wait_until(lambda: archive.instance_count(uid) == 1, 60, "the study is found")
    wait_until(lambda: archive.json(f"/reports/{report}"), 60, "the report is found")
    return Target(uid, str(archive.json(f"/studies/{uid}")["patient_key"]), report)


def test_the_table_holds_on_the_running_api(archive: Archive, whole: LocalStack, tmp_path: Path) -> None:
    reports = ("00000000-0000-4000-8000-00000000a001", "00000000-0000-4000-8000-00000000a002")
    own = target(archive, tmp_path, OWN_SITE, 777_001, reports[0])
    other = target(archive, tmp_path, OTHER_SITE, 777_002, reports[1])
    stated = httpx.post(f"{archive.base}/patients/{own.key}/treating", json={"person_id": PERSON}, timeout=30)
    assert stated.status_code in (200, 201), stated.text
    settings = whole.settings("api")
    tokens: dict[Role, dict[str, str]] = {
        role: bearer(
            settings,
            role,
            sites=(OWN_SITE,),
            person=PERSON,
            patient=own.key if role is Role.PATIENT else "",
            service=f"permissions-{role}" if role in (Role.GATEWAY, Role.EHR) else "",
        )
        for role in Role
        if role is not Role.LOCAL
    }
    wait_until(
        lambda: httpx.get(f"{archive.base}/studies/{own.study}", headers=tokens[Role.DOCTOR]).status_code == 200,
        30,
        "the doctor treats the patient",
    )
    document = archive.json("/openapi.json")
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    with httpx.Client(base_url=archive.base, timeout=60) as client:
        opened = {p for p, item in document["paths"].items() if any(o.get("security") == [] for o in item.values())}
        for case in cases(document, frozenset(OPEN | opened), own, other):
            if not case.own and case.reason != "scope":
                continue  # what a role may do to nobody's things, and to anybody's, the first half says
            kind = {"Content-Type": "application/fhir+json"} if case.body is not None else {}
            answer = _asked(client, case.method, case.path, json=case.body, headers={**kind, **tokens[case.role]})
            reason = _reason(answer)
            let_in = answer.status_code not in (401, 403, 429) and answer.status_code < 500
            if reason != case.reason or (not case.reason and not let_in):
                wrong.append(f"{case.role} {case.method} {case.path} own={case.own}: {answer.status_code} {reason!r}")
            if case.reason and "sijil-access-id" not in answer.headers:
                wrong.append(f"{case.role} {case.method} {case.path}: refused, and not recorded")
            seen[case.reason or "let in"] += 1
    assert not wrong, "\n".join(wrong)
    assert seen["let in"] > 300
    assert seen["scope"] > 100
    assert seen["role"] > 600


def _asked(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    """The answer, waited for as long as 429 says: all roles are one person's here, who changes much in a short time."""
    while (answer := client.request(method, path, **more)).status_code == 429:
        time.sleep(int(answer.headers["retry-after"]))
    return answer


def _reason(answer: httpx.Response) -> str:
    return reason_of(answer.json()) if answer.status_code == 403 else ""
