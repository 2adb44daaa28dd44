"""Writes the generated contract, or checks that what is committed is what the code says.

    python -m infra.generate           writes schemas/json, schemas/asyncapi.yaml, infra/cql/0002_views.cql,
                                       infra/conformance.md
    python -m infra.generate --check   exit 1 and a line per difference

`schemas/json/published/<type>/<n>.schema.json` holds every shape a version ever had. They are only ever added, and each
must be compatible with today's (schemas.contract.incompatibilities).
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from infra import conformance
from schemas.contract import asyncapi, incompatibilities, json_schemas
from schemas.tables import TABLES, VIEWS_KEYSPACE

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = Path("schemas/json/published")


def generated() -> dict[Path, str]:
    """Path from the root → text of every generated file."""
    files = {Path("schemas/json") / name: _json(schema) for name, schema in json_schemas().items()}
    files[Path("schemas/asyncapi.yaml")] = yaml.safe_dump(
        asyncapi(version("sijil")), sort_keys=False, allow_unicode=True, width=110
    )
    views = "\n\n".join(t.create(VIEWS_KEYSPACE) for t in TABLES)
    files[Path("infra/cql/0002_views.cql")] = (
        f"-- Generated from schemas/tables.py by `python -m infra.generate`.\n\n{views}\n"
    )
    files[conformance.FILE] = conformance.statement()
    return files


def check(root: Path = ROOT) -> list[str]:
    """What is wrong; empty when all is up to date and compatible."""
    faults = []
    for path, text in generated().items():
        committed = root / path
        if not committed.exists() or committed.read_text(encoding="utf-8") != text:
            faults.append(f"{path} is not up to date: run `python -m infra.generate` and read the diff")
    today = json_schemas()
    shapes = _published(root)
    for name, schema in today.items():
        history = shapes.pop(name.removesuffix(".schema.json"), [])
        if not history or json.loads(history[-1].read_text(encoding="utf-8")) != schema:
            faults.append(f"{name}: today's shape is not in {PUBLISHED}: run `python -m infra.generate`")
        for shape in history:
            old = json.loads(shape.read_text(encoding="utf-8"))
            faults += [f"{name} against {shape.name}: {why}" for why in incompatibilities(old, schema)]
    faults += [f"{gone} was published and is gone: keep it and add an upcaster" for gone in sorted(shapes)]
    return faults


def write(root: Path = ROOT) -> list[str]:
    """Write all files, adding changed shapes to the history. Writes nothing if it returns faults."""
    shapes = _published(root)
    additions: dict[Path, str] = {}
    faults = []
    for name, schema in json_schemas().items():
        event_type = name.removesuffix(".schema.json")
        history = shapes.get(event_type, [])
        for shape in history:
            old = json.loads(shape.read_text(encoding="utf-8"))
            faults += [f"{name} against {shape.name}: {why}" for why in incompatibilities(old, schema)]
        if not history or json.loads(history[-1].read_text(encoding="utf-8")) != schema:
            additions[PUBLISHED / event_type / f"{len(history) + 1}.schema.json"] = _json(schema)
    if faults:
        return faults
    for path, text in {**generated(), **additions}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return []


def _published(root: Path) -> dict[str, list[Path]]:
    folder = root / PUBLISHED
    kinds = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.exists() else []
    return {
        kind.name: sorted(kind.glob("*.schema.json"), key=lambda p: int(p.name.partition(".")[0])) for kind in kinds
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main(argv: list[str]) -> int:
    """Exit status 0 when the committed files are (or now are) what the code says."""
    faults = check() if argv == ["--check"] else write()
    for fault in faults:
        sys.stderr.write(fault + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
