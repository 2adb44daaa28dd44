"""The door's own page: `/docs`. No script, nothing from another host: hospitals have closed networks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark;--edge:#8884;--soft:#8882;--accent:#0b7a75}
body{font:16px/1.55 system-ui,"Noto Sans Arabic",sans-serif;max-width:60rem;margin:0 auto;padding:1.5rem}
h1{margin:.2rem 0}h2{margin:2rem 0 .4rem;border-bottom:1px solid var(--edge)}
code,.path{font-family:ui-monospace,monospace;direction:ltr;unicode-bidi:isolate;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}td,th{border:1px solid var(--edge);padding:.3rem .6rem;text-align:start;
vertical-align:top}details{border:1px solid var(--edge);border-radius:.4rem;margin:.4rem 0;padding:.2rem .7rem}
summary{cursor:pointer;padding:.3rem 0}.method{display:inline-block;min-width:4rem;font-weight:700;color:var(--accent)}
a{color:var(--accent)}
p.about{white-space:pre-line}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
}


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def docs(document: Mapping[str, Any]) -> str:
    """The page at `/docs`, from the OpenAPI document: operations by tag."""
    tags: dict[str, list[str]] = {}
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["Other"])[0]
            tags.setdefault(tag, []).append(_operation(path, method, operation))
    info = document.get("info", {})
    body = [f"<h1>{escape(info.get('title', ''))}</h1><p class=about>{escape(info.get('description', ''))}</p>"]
    body.append('<p><a href="/openapi.json">openapi.json</a></p>')
    for tag, operations in tags.items():
        body.append(f"<h2>{escape(tag)}</h2>{''.join(operations)}")
    return _page(info.get("title", ""), "".join(body))


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    about = escape(operation.get("description", ""))
    return (
        f'<details><summary><span class="method">{escape(method.upper())}</span>'
        f'<span class="path">{escape(path)}</span>'
        f' — {escape(operation.get("summary", ""))}</summary><p class="about">{about}</p>'
        f"{_table(('Parameter', 'In', 'Meaning'), _parameters(operation))}"
        f"{_table(('Answer', 'Media types', 'Meaning'), _answers(operation))}</details>"
    )


def _parameters(operation: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for p in operation.get("parameters", ()):
        yield p["name"], p["in"] + (", required" if p.get("required") else ""), p.get("description", "")
    body = operation.get("requestBody", {})
    if body:
        yield "body", ", ".join(body.get("content", {})), body.get("description", "")


def _answers(operation: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for status, answer in operation.get("responses", {}).items():
        yield status, ", ".join(answer.get("content", {})), answer.get("description", "")


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr>{cells}</table>" if cells else ""
