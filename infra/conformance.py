"""The DICOM Conformance Statement (PS3.2), made of what the doors really do.

Presentation contexts are found by asking the composed DICOM door about every SOP class and transfer syntax of PS3.6,
DICOMweb transactions by reading the routes of the composed HTTP door, both over ports in memory. What cannot be asked
(statuses, behaviour) the rooms say in tables of theirs, which are those their code uses: entry points of group
`sijil.conformance`, each a sequence of `Service`.
"""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path

from pydicom._uid_dict import UID_dictionary

from infra import dicom_door, dicom_scu, http_door
from infra.chain import ChainedLog
from infra.dicom_door import DicomDoor
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import SETTINGS, Settings
from schemas.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

ENTRY_POINTS = "sijil.conformance"
FILE = Path("infra/conformance.md")
PRIVATE_EXAMPLE = "1.2.826.0.1.3680043.8.498.1"
CONFIGURATION = (
    "ae_title", "dicom_host", "dicom_port", "max_associations", "max_outgoing_associations", "commitment_grace_s",
    "commitment_days", "http_host", "http_port", "http_public_url", "body_buffer_mb", "pack_own_mb", "query_limit_max",
)  # fmt: skip


@dataclass(frozen=True)
class Service:
    """What a room says of one service. `sop_classes` only where this archive is the requestor: it proposes them."""

    name: str
    clause: str
    role: str
    """SCP, SCU, both; `origin server` for DICOMweb."""
    about: str
    statuses: Mapping[int, str] = field(default_factory=dict)
    extended_negotiation: str = "None."
    proposes: Sequence[tuple[str, str]] = ()
    """(abstract syntax, transfer syntaxes and role) of associations that this archive opens."""
    notes: Sequence[str] = ()

    @property
    def is_web(self) -> bool:
        """Whether it is one of DICOMweb."""
        return self.role == "origin server"


@dataclass(frozen=True)
class Offered:
    """What the doors accept."""

    contexts: Mapping[str, tuple[str, ...]]
    """SOP class → transfer syntaxes, of PS3.6 and a private one."""
    both_roles: frozenset[str]
    routes: Sequence[tuple[str, str, str, str]]
    """(method, path, what it is, media types)."""


@cache
def statement() -> str:
    """The whole document, Markdown."""
    services = sorted(_services(), key=lambda s: (s.is_web, s.clause))
    with _asked() as offered:
        return "\n".join(_lines(services, offered)) + "\n"


def _services() -> Iterator[Service]:
    for entry in entry_points(group=ENTRY_POINTS):
        yield from entry.load()


# ------------------------------------------------------------------------------------------------ asking the doors


@contextmanager
def _asked() -> Iterator[Offered]:
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings(search_secret="00" * 32), home=Path(folder))
        log, objects = MemoryLog(), MemoryObjects()
        chain = ChainedLog(log, Path(folder) / "chain", "/operator/DOC/1", backlog_max=1, anchors=None)
        door = DicomDoor(settings, log=log, chain=chain, objects=objects)
        for entry in sorted(entry_points(group=dicom_door.ENTRY_POINTS), key=lambda e: e.name):
            entry.load()(door)
        app = compose(HttpDoor(settings, log=log, chain=chain, objects=objects), http_door.installed())
        yield Offered(*_contexts(door), _routes(app.openapi()))
        chain.close(1)


def _contexts(door: DicomDoor) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    syntaxes = [uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"]
    classes = [uid for uid, (_, kind, *_) in UID_dictionary.items() if kind in ("SOP Class", "Meta SOP Class")]
    found = {}
    for uid in [*classes, PRIVATE_EXAMPLE]:
        accepted = tuple(s for s in syntaxes if door.negotiate(uid, [s]) is not None)
        if accepted:
            found[uid] = accepted
    return found, frozenset(uid for uid in found if any(yes(uid) for yes in door.both_roles))


def _routes(document: Mapping[str, object]) -> list[tuple[str, str, str, str]]:
    paths = document["paths"]
    assert isinstance(paths, dict)  # noqa: S101  (OpenAPI says so)
    found = []
    for path, methods in paths.items():
        for method, what in methods.items():
            if path.startswith("/dicom-web"):
                content = what.get("responses", {}).get("200", {}).get("content", {})
                types = [t for t, told in content.items() if "schema" not in told]  # with one it is FastAPI's guess
                found.append((method.upper(), path, what.get("summary", ""), ", ".join(types) or "see below"))
    return sorted(found, key=lambda r: (r[1], r[0]))


# ------------------------------------------------------------------------------------------------ the document


def _lines(services: Sequence[Service], offered: Offered) -> Iterator[str]:
    dimse = [s for s in services if not s.is_web]
    web = [s for s in services if s.is_web]
    yield "# DICOM Conformance Statement: Sijil"
    yield ""
    yield from _prose(
        f"Product: Sijil {version('sijil')}. Generated by `python -m infra.generate` from the tables of "
        "the code; in the form of PS3.2. It is checked at every build that this text is what the doors "
        "do."
    )
    yield from _heading(1, "Conformance statement overview")
    yield from _prose(
        "Sijil is a radiology archive: it stores composite SOP Instances, commits to their storage, and "
        "answers queries and retrievals by DIMSE and by DICOMweb. Stored datasets are kept byte for byte."
    )
    yield ""
    yield from _table(("Service", "PS3.4 / PS3.18", "Role"), ((s.name, s.clause, s.role) for s in services))
    yield from _heading(2, "Implementation model")
    yield from _prose(
        "One application entity, of one title. The *gateway* process answers DIMSE, the *api* process "
        "DICOMweb; each takes instances into a spool of its own, from which packs go to S3 and events to "
        "Kafka. Queries and retrievals are answered from tables that are made of these events, and from "
        "ranges of the packs. So an instance is found after its pack is stored and its event projected, "
        "seconds after its acknowledgement, and is committed no earlier."
    )
    yield ""
    yield from _prose(
        "Sequencing: a sender stores, asks for commitment, and deletes after the report. Query before "
        "retrieval is not needed."
    )
    yield from _heading(3, "Application entity")
    yield from _heading(3.1, "Association policies")
    yield from _table(("Policy", "Value"), _policies())
    yield from _heading(3.2, "Presentation contexts accepted")
    yield from _accepted(offered)
    yield from _heading(3.3, "Presentation contexts proposed")
    proposes = [(s.name, *p) for s in dimse for p in s.proposes]
    yield from _table(("Service", "Abstract syntax", "Transfer syntaxes, role"), proposes)
    for n, service in enumerate(dimse, 4):
        yield from _service(f"3.{n}", service)
    yield from _heading(4, "DICOMweb")
    yield from _prose(
        "Base: `/dicom-web` of the HTTP door; with TLS on a port of its own (1.2 or later). JSON is the DICOM JSON "
        "model of PS3.18 Annex F, in UTF-8. HEAD is answered wherever GET is. OPTIONS at the base or at a resource "
        "gives the capabilities (PS3.18 §8.9) as application/vnd.sun.wadl+xml or application/json."
    )
    yield ""
    yield from _table(("Method", "Resource", "Transaction", "Media types"), offered.routes)
    for n, service in enumerate(web, 1):
        yield from _service(f"4.{n}", service)
    yield from _heading(5, "Transfer syntaxes")
    used = {s for syntaxes in offered.contexts.values() for s in syntaxes}
    yield from _table(("Name", "UID"), ((name_of(s), f"`{s}`") for s in sorted(used, key=_natural)))
    yield from _heading(6, "Network interfaces")
    yield from _prose(
        "TCP over IPv4 or IPv6 as the operating system gives it; TCP_NODELAY on. With TLS on a port of its own, by the "
        "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 §B.12): callers must have a "
        "certificate of the configured CA. Associations that the archive opens are without TLS."
    )
    yield from _heading(7, "Configuration")
    yield from _prose(
        "Remote application entities: `sijil ae add TITLE HOST PORT` (title, address or network, port, "
        "site, role, issuer of patient ids, certificate). TITLE, HOST and certificate decide who may "
        "call, the role what for, HOST and PORT where reports and retrieved instances are sent."
    )
    yield ""
    chosen = [s for s in SETTINGS if s.env.removeprefix("SIJIL_").lower() in CONFIGURATION]
    yield from _table(("Setting", "Default", "Meaning"), ((f"`{s.env}`", s.default, s.help) for s in chosen))
    yield from _heading(8, "Support of character sets")
    yield from _prose(
        "All defined terms of PS3.3 §C.12.1.1.2, with and without code extensions. Text is stored as it "
        "came. For search and DICOM JSON it is decoded by its Specific Character Set; what no term "
        "explains is guessed (UTF-8, then Arabic, then Latin) and marked. Answers by HTTP are in UTF-8."
    )
    yield from _heading(9, "Security")
    yield from _prose(
        "Callers are known by AE title and address. Every query and retrieval is an event that is durable "
        "before the first byte of its answer leaves. Logs hold UIDs, never names, identifiers or dates of "
        "patients."
    )
    yield from _heading(10, "Private and unknown SOP classes and attributes")
    yield from _prose(
        "What PS3.6 does not register is accepted as storage, and stored and returned unchanged. Nothing "
        "is added to or taken from a dataset. Private attributes are returned, not matched."
    )


def _policies() -> Iterator[tuple[str, str]]:
    yield "Application context name", f"`{dicom_scu.APPLICATION_CONTEXT}`"
    yield "Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"
    yield "Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"
    yield "Maximum PDU length received", f"{dicom_door.MAXIMUM_PDU} bytes"
    yield (
        "Associations accepted at once",
        "`SIJIL_MAX_ASSOCIATIONS`; more are rejected for a while",
    )
    yield (
        "Associations opened at once",
        "`SIJIL_MAX_OUTGOING_ASSOCIATIONS` for C-MOVE, a quarter to one destination",
    )
    yield "Asynchronous operations", "not supported: one operation outstanding"
    yield "Association requests", f"A-ASSOCIATE-RQ within {dicom_door.ACSE_S} s of connecting"
    yield "Idle associations", f"aborted after {dicom_door.IDLE_S} s"
    yield (
        "Rejections",
        "calling AE title not recognized (1, 1, 3), called AE title not recognized (1, 1, 7), "
        "local limit exceeded (2, 3, 2): too many associations, or the spool's disk is nearly full",
    )
    waits = dicom_scu.Waits()
    yield (
        "Waits of associations opened",
        f"connection {waits.connect_s:.0f} s, association {waits.acse_s:.0f} s, "
        f"PDU taken {waits.network_s:.0f} s, response {waits.dimse_s:.0f} s",
    )


def _accepted(offered: Offered) -> Iterator[str]:
    yield from _prose(
        "Of the transfer syntaxes that a context offers, the first in the sender's order that stands here "
        "is accepted, Explicit VR Little Endian before Implicit VR Little Endian. A context that offers "
        "none of them is refused, so that the sender falls back to another."
    )
    groups: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    for uid, syntaxes in offered.contexts.items():
        groups.setdefault((syntaxes, uid in offered.both_roles), []).append(uid)
    for (syntaxes, both), uids in sorted(groups.items(), key=lambda g: len(g[1])):
        yield ""
        yield f"**{len(uids)} abstract syntax{'es' if len(uids) > 1 else ''}**; role: SCP" + (
            ", and SCU where the peer takes the SCP role by role selection (C-GET)." if both else "."
        )
        if len(syntaxes) > 4:
            yield "Transfer syntaxes: all of section 5."
        else:
            yield f"Transfer syntaxes: {', '.join(map(name_of, syntaxes))}."
        yield ""
        yield from _table(("Abstract syntax", "UID"), ((name_of(u), f"`{u}`") for u in sorted(uids, key=_natural)))


def _service(number: str, service: Service) -> Iterator[str]:
    yield from _heading(number, f"{service.name} ({service.role}; {service.clause})")
    yield from _prose(service.about)
    if not service.is_web:
        yield ""
        yield f"Extended negotiation: {service.extended_negotiation}"
    if service.notes:
        yield ""
        yield from (f"- {note}" for note in service.notes)
    if service.statuses:
        yield ""
        rows = sorted(service.statuses.items())
        form = "{}" if service.is_web else "{:04X}"
        yield from _table(("Status", "When"), ((f"`{form.format(code)}`", text) for code, text in rows))


def name_of(uid: str) -> str:
    """Name of a UID in PS3.6."""
    if uid == PRIVATE_EXAMPLE:
        return "any private or unregistered SOP class (this one is an example)"
    name, _, _, retired, _ = UID_dictionary.get(uid, (uid, "", "", "", ""))
    return (name or f"retired, without a name ({uid})") + (" (retired)" if retired and "etired" not in name else "")


def _prose(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 118, break_on_hyphens=False)


def _heading(number: float | str, title: str) -> Iterator[str]:
    yield ""
    yield f"{'###' if '.' in str(number) else '##'} {number} {title}"
    yield ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _natural(uid: str) -> list[int]:
    return [int(part) for part in uid.split(".")]
