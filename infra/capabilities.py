"""What the DICOMweb service can do, as a WADL document made of its routes (PS3.18 §8.9 and Annex H). Pure.

`application` holds one `resources` with the service's base, and in it the resource that was asked about with all its
methods and its children. Methods have the names of Annex H's transactions as `id`. JSON is the same tree, an element
being an object of its attributes and, by their names, lists of its children.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree

import msgspec

BASE: Final = "/dicom-web"
WADL, JSON, XML = "application/vnd.sun.wadl+xml", "application/json", "application/xml"
MEDIA_TYPES = (WADL, JSON, XML)
NAMESPACE: Final = "http://wadl.dev.java.net/2009/02"

_LEVELS = {"studies/{}": "Study", "studies/{}/series/{}": "Series", "studies/{}/series/{}/instances/{}": "Instance"}
_ASPECTS = {"metadata": "{}Metadata", "rendered": "Rendered{}", "thumbnail": "{}Thumbnail", "original": "{}Original"}
TRANSACTIONS: dict[tuple[str, str], str] = {
    ("GET", "studies"): "SearchForStudies",
    ("GET", "series"): "SearchForSeries",
    ("GET", "instances"): "SearchForInstances",
    ("GET", "studies/{}/series"): "SearchForStudySeries",
    ("GET", "studies/{}/instances"): "SearchForStudyInstances",
    ("GET", "studies/{}/series/{}/instances"): "SearchForStudySeriesInstances",
    ("POST", "studies"): "StoreInstances",
    ("POST", "studies/{}"): "StoreStudyInstances",
    ("GET", "studies/{}/series/{}/instances/{}/frames/{}"): "RetrieveFrames",
    ("GET", "studies/{}/series/{}/instances/{}/frames/{}/rendered"): "RetrieveRenderedFrames",
    ("GET", "studies/{}/series/{}/instances/{}/frames/{}/thumbnail"): "RetrieveFrameThumbnail",
    ("GET", "studies/{}/series/{}/instances/{}/bulkdata/{}"): "RetrieveInstanceBulkdata",
    ("POST", "commitment-requests/{}"): "RequestStorageCommitment",
    ("GET", "commitment-requests/{}"): "ResultCheck",
    **{("GET", path): f"Retrieve{level}" for path, level in _LEVELS.items()},
    **{
        ("GET", f"{path}/{aspect}"): f"Retrieve{name.format(level)}"
        for path, level in _LEVELS.items()
        for aspect, name in _ASPECTS.items()
    },
}
"""(method, path with {} for each variable) → transaction."""


@dataclass(frozen=True)
class Parameter:
    """Of a query, or a header."""

    name: str
    about: str
    style: str


@dataclass(frozen=True)
class Operation:
    """A method of a route. `path` as it is registered, below BASE; media types of what it takes and what it gives."""

    method: str
    path: str
    about: str = ""
    parameters: Sequence[Parameter] = ()
    takes: Sequence[str] = ()
    gives: Sequence[str] = ()


@dataclass
class _Node:
    """A resource: a step of a path."""

    children: dict[str, _Node] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    takes_rest: bool = False
    """Its variable is all that is left of an address."""


Element = dict[str, Any]
"""Attributes, and lists of children by their name."""


@dataclass(frozen=True)
class Made:
    """An answer. `media_type` is empty where the client takes none of ours."""

    content: bytes
    media_type: str
    allow: tuple[str, ...]


class Capabilities:
    """Of a service with these operations."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._root = _Node()
        for operation in operations:
            self._node(operation.path).operations.append(operation)

    def answer(self, origin: str, path: str, accept: str) -> Made | None:
        """About the resource at `path`, a template or an address; None where there is none."""
        steps = [s for s in path.removeprefix(BASE).split("/") if s]
        found = self._find(steps)
        if found is None:
            return None
        node, names = found
        media_type = chosen(accept)
        resources = [_resource("/".join(names), node)] if names else [_resource(n, c) for n, c in node.children.items()]
        tree: Element = {"xmlns": NAMESPACE, "resources": [{"base": f"{origin}{BASE}", "resource": resources}]}
        content = msgspec.json.encode({"application": tree}) if media_type == JSON else _xml("application", tree)
        return Made(content, media_type, _allow(node))

    def allow(self, path: str) -> tuple[str, ...]:
        """Methods of the resource at `path`, all of its routes together; empty where there is none."""
        found = self._find([s for s in path.removeprefix(BASE).split("/") if s])
        return _allow(found[0]) if found else ()

    def _node(self, path: str) -> _Node:
        node = self._root
        for step in (s for s in path.split("/") if s):
            node = node.children.setdefault(step.replace(":path", ""), _Node(takes_rest=step.endswith(":path}")))
        return node

    def _find(self, steps: Sequence[str]) -> tuple[_Node, list[str]] | None:
        """The resource and the steps of its template."""
        node, names = self._root, list[str]()
        for step in steps:
            name = step if step in node.children else next((n for n in node.children if n.startswith("{")), "")
            if name not in node.children:
                return None
            node = node.children[name]
            names.append(name)
            if node.takes_rest:
                break
        return node, names


def _allow(node: _Node) -> tuple[str, ...]:
    methods = {"OPTIONS", *(o.method for o in node.operations)}
    return tuple(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def chosen(accept: str) -> str:
    """The media type of an answer for an Accept header; empty for none. Raises nothing: what is no quality counts 0."""
    wanted: list[tuple[float, int, str]] = []
    for number, piece in enumerate((accept or "*/*").split(",")):
        name, *parameters = (p.strip().lower() for p in piece.split(";"))
        quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        weight = float(quality) if quality.replace(".", "", 1).isdigit() else 0.0
        if weight > 0:
            wanted.append((-weight, number, name))
    for _, _, name in sorted(wanted):
        if name in ("*/*", "application/*"):
            return WADL
        if name in MEDIA_TYPES:
            return name
    return ""


def _resource(path: str, node: _Node) -> Element:
    variables = [s[1:-1] for s in path.split("/") if s.startswith("{")]
    found: Element = {"path": path}
    if variables:
        found["param"] = [{"name": v, "style": "template", "required": "true"} for v in variables]
    found["method"] = [_method(o) for o in node.operations]
    found["resource"] = [_resource(name, child) for name, child in node.children.items()]
    return found


def _method(operation: Operation) -> Element:
    plain = "/".join("{}" if s.startswith("{") else s for s in operation.path.strip("/").split("/"))
    request: Element = {}
    if operation.gives:
        options = [{"value": m} for m in operation.gives]
        request["param"] = [{"name": "Accept", "style": "header", "default": operation.gives[0], "option": options}]
    for parameter in operation.parameters:
        documented = {"doc": [{"title": parameter.about}]} if parameter.about else {}
        request.setdefault("param", []).append(
            {"name": parameter.name, "style": parameter.style, "required": "false", **documented}
        )
    if operation.takes:
        request["representation"] = [{"mediaType": m} for m in operation.takes]
    transaction = TRANSACTIONS.get((operation.method, plain))
    return {
        "name": operation.method,
        **({"id": transaction} if transaction else {}),
        "doc": [{"title": operation.about}],
        "request": [request],
        "response": [{"status": "200", "representation": [{"mediaType": m} for m in operation.gives]}],
    }


def _xml(name: str, element: Element) -> bytes:
    made: bytes = ElementTree.tostring(_xml_of(name, element), encoding="utf-8", xml_declaration=True)
    return made


def _xml_of(name: str, element: Element) -> ElementTree.Element:
    made = ElementTree.Element(name)
    for key, value in element.items():
        if isinstance(value, str):
            made.set(key, value)
        else:
            made.extend(_xml_of(key, child) for child in value)
    return made
