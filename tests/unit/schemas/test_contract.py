"""The published contract: complete, enforced in both directions, validated by parsers that are not ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from infra.generate import ROOT, check
from schemas.contract import asyncapi, incompatibilities, json_schema, json_schemas
from schemas.events import EVENTS, PackStored, ReportIssued, encode_payload
from schemas.tables import TABLES
from schemas.topics import TOPICS, topic_of

PARSER = "@asyncapi/parser@3.6.3"

STORED = PackStored(
    pack_id="018f0000-0000-7000-8000-0000000000ab",
    study_uid="1.2.3",
    site="LOCAL",
    gateway="/gateway/LOCAL/1",
    door="dimse",
    bucket="sijil-packs",
    pack_key="packs/ab/x.tar",
    pack_size=1,
    pack_sha256="0" * 64,
    manifest_key="packs/ab/x.manifest.jsonl.gz",
    manifest_size=1,
    manifest_sha256="0" * 64,
    instances=1,
    opened="2026-11-23T00:00:00Z",
    sealed="2026-11-23T00:00:02.5Z",
)


def test_committed_files_are_what_the_code_says() -> None:
    assert check() == []


def test_every_event_has_a_topic_and_every_schema_is_valid() -> None:
    names = {t.name for t in TOPICS}
    for event in EVENTS:
        assert topic_of(event) in names
        jsonschema.Draft202012Validator.check_schema(json_schema(event))
    assert len(json_schemas()) == len(EVENTS)


def test_an_independent_validator_agrees_with_our_decoder() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(PackStored))
    good = json.loads(encode_payload(STORED))
    assert list(validator.iter_errors(good)) == []
    for field, wrong in (("study_uid", "1.2.x"), ("instances", 0), ("pack_sha256", "F" * 64), ("sealed", "yesterday")):
        assert list(validator.iter_errors({**good, field: wrong})), field
    assert list(validator.iter_errors({k: v for k, v in good.items() if k != "site"}))


def _changed(path: list[str], value: Any) -> dict[str, Any]:
    schema = deepcopy(json_schema(ReportIssued))
    node = schema
    for step in path[:-1]:
        node = node[step]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return schema


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["properties", "site"], None, "field is gone"),
        (["properties", "version", "minimum"], 2, "minimum changed"),
        (["properties", "version", "type"], "string", "type changed"),
        (["properties", "study_uids", "items", "maxLength"], 32, "maxLength changed"),
        (["properties", "study_uids", "maxItems"], 99, "maxItems changed"),
        (["required"], ["report_id"], "became optional"),
    ],
)
def test_incompatible_changes_are_named(path: list[str], value: Any, said: str) -> None:
    found = incompatibilities(json_schema(ReportIssued), _changed(path, value))
    assert any(said in f for f in found), found


def test_an_optional_addition_and_better_words_are_compatible() -> None:
    new = deepcopy(json_schema(ReportIssued))
    new["properties"]["added_later"] = {"type": "string", "default": ""}
    new["properties"]["site"]["description"] = "better words"
    assert incompatibilities(json_schema(ReportIssued), new) == []
    new["required"].append("added_later")
    assert incompatibilities(json_schema(ReportIssued), new) == ["$.added_later: new field is required"]


def test_a_committed_shape_that_breaks_today_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "schemas/json", tmp_path / "schemas/json")
    (tmp_path / "infra/cql").mkdir(parents=True)
    for name in ("schemas/asyncapi.yaml", "infra/cql/0002_views.cql", "infra/conformance.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert check(tmp_path) == []
    shape = tmp_path / "schemas/json/published/report.issued.v1/1.schema.json"
    old = json.loads(shape.read_text())
    old["properties"]["gone"] = {"type": "string"}
    shape.write_text(json.dumps(old))
    assert any("gone: field is gone" in fault for fault in check(tmp_path))
    shutil.rmtree(tmp_path / "schemas/json/published/report.issued.v1")
    assert any("report.issued.v1" in fault for fault in check(tmp_path))


def test_tables_have_their_keys_among_their_columns() -> None:
    for table in TABLES:
        assert set(table.primary_key) <= set(table.columns), table.name
        assert table.descending <= set(table.clustering), table.name
        assert table.source, table.name


def test_asyncapi_names_every_topic_and_message() -> None:
    document = asyncapi("1")
    assert {c["address"] for c in document["channels"].values()} == {t.name for t in TOPICS}
    assert set(document["components"]["messages"]) == {e.TYPE for e in EVENTS}


@pytest.mark.slow
def test_asyncapi_passes_an_independent_parser() -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not installed: apt-get install nodejs npm")
    folder = ROOT / ".venv" / "asyncapi-parser"
    if not (folder / "node_modules" / "@asyncapi" / "parser").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--silent", PARSER], cwd=folder, check=True, timeout=240
        )
    script = (
        "import {Parser, fromFile} from '@asyncapi/parser';"
        "const {document, diagnostics} = await fromFile(new Parser(), process.env.DOCUMENT).parse();"
        "const errors = diagnostics.filter(d => d.severity === 0);"
        "console.log(JSON.stringify({errors, channels: document ? document.channels().all().length : 0}));"
    )
    run = subprocess.run(
        [node, "--input-type=module", "-e", script],
        cwd=folder,
        env={**os.environ, "DOCUMENT": str(ROOT / "schemas/asyncapi.yaml")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(run.stdout) == {"errors": [], "channels": len(TOPICS)}
