"""The AE table: which DICOM application entities may call, for whom they speak, and where to send to.

One row per AE title in `sijil_state.ae_titles`, changed by `producers.devices` alone (`sijil ae`, API, page of
devices). The title `*` stands for any title that calls from its addresses: the local stack has one such row, for this
machine itself.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from infra import clock
from infra.ports import Tables
from schemas.caller import Caller
from schemas.errors import Invalid
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import STATE_KEYSPACE, Delete, Upsert

ANY = "*"
TABLE = "ae_titles"
ROLE_OF: Mapping[str, Role] = {
    "modality": Role.TECHNICIAN,
    "van": Role.TECHNICIAN,
    "workstation": Role.RADIOLOGIST,
    "pacs": Role.RADIOLOGIST,
    "ehr": Role.EHR,
    "any": Role.LOCAL,
}
"""What an application entity is → as which role it asks, at its site."""
ROLES = tuple(ROLE_OF)
GIVEN = tuple(r for r, role in ROLE_OF.items() if role is not Role.LOCAL)
"""Those that an administrator may give; the rest opens everything, which is the operator's."""


@dataclass(frozen=True)
class Ae:
    """One application entity.

    `host`: address or name where it listens and from where it calls; a network (`10.2.0.0/16`) where many call from.
    `port`: where it listens, 0 if nothing is sent to it. `site`: whose studies it sends; empty: the gateway's own.
    `certificate`: SHA-256 (hex) of the certificate it must prove itself with; empty: its address says enough.
    `issuer`: who issues the PatientIDs it sends without an issuer; empty: its site.
    """

    ae_title: str
    host: str
    port: int
    site: str = ""
    role: str = "modality"
    issuer: str = ""
    certificate: str = ""
    tls: bool = False
    """Where it listens it speaks TLS."""


def checked(ae: Ae) -> Ae:
    """`ae` if it can be one. Raises Invalid for what is no title (VR AE, PS3.5 §6.2), port, role or host."""
    title = ae.ae_title.strip(" ")
    printable = all(" " <= c <= "~" and c != "\\" for c in title)
    if not 1 <= len(title) <= 16 or not printable or title != ae.ae_title:
        raise Invalid("ae-title", f"{ae.ae_title!r} is no AE title: 1 to 16 characters of ASCII, no backslash")
    if not 0 <= ae.port <= 65535:
        raise Invalid("ae-port", f"{ae.port} is no TCP port")
    if ae.role not in ROLES:
        raise Invalid("ae-role", f"{ae.role!r} is no role: one of {', '.join(ROLES)}")
    if ae.certificate and not re.fullmatch("[0-9a-f]{64}", ae.certificate):
        raise Invalid("ae-certificate", "a certificate is named by its SHA-256: 64 hexadecimal digits")
    if not ae.host:
        raise Invalid("ae-host", f"{ae.ae_title} needs a host: its address, its name, or the network it calls from")
    return ae


def find_caller(table: Iterable[Ae], title: str, address: str, certificate: str = "") -> Ae | None:
    """The row under which `title` may call from the IP `address`: its own row, or that of any title if it has none.

    A title that is somebody's is nobody else's, also not at an address from which any other may call. Names in the
    table are resolved now, so ask once per association. None: it may not call.
    """
    calling = ipaddress.ip_address(address)
    if isinstance(calling, ipaddress.IPv6Address) and calling.ipv4_mapped:
        calling = calling.ipv4_mapped
    known = [*table]
    rows = [ae for ae in known if ae.ae_title == title.strip(" ")] or [ae for ae in known if ae.ae_title == ANY]
    rows = [ae for ae in rows if ae.certificate in ("", certificate)]
    return next((ae for ae in rows if any(calling in network for network in _networks(ae.host))), None)


def caller(ae: Ae, title: str, address: str, home_site: str) -> Caller:
    """For whom `title` at `address` speaks, whose row is `ae`."""
    role = ROLE_OF[ae.role]
    sites = frozenset({ae.site or home_site})
    return Caller(f"ae:{title}@{address}", role, DEFAULT_PURPOSE[role], sites, via="dimse", address=address)


def is_one_host(host: str) -> bool:
    """Whether a row's host is one that can be connected to: a name or an address, not a network."""
    try:
        return ipaddress.ip_network(host, strict=False).num_addresses == 1
    except ValueError:
        return True


def _networks(host: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    try:
        return [ipaddress.ip_network(host, strict=False)]
    except ValueError:
        pass
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return []
    return [ipaddress.ip_network(a) for a in found]


async def read(tables: Tables) -> list[Ae]:
    """Every row, by title. Raises Transient."""
    state = tables.with_keyspace(STATE_KEYSPACE)
    rows = [row async for row in state.scan(TABLE)]
    # A column that was added later is missing in older rows.
    known = [{name: value for name, value in row.items() if value is not None} for row in rows]
    found = [Ae(**{"host": "", "port": 0, **row}) for row in known]
    return sorted(found, key=lambda ae: ae.ae_title)


async def add(tables: Tables, ae: Ae) -> None:
    """Add or replace the row of its title. Raises Invalid, Transient."""
    columns = asdict(checked(ae))
    key = {"ae_title": columns.pop("ae_title")}
    write = Upsert(TABLE, key, columns, int(clock.now().timestamp() * 1_000_000))
    await tables.with_keyspace(STATE_KEYSPACE).apply([write])


async def remove(tables: Tables, title: str) -> None:
    """Take the row of a title away. Raises Transient."""
    write = Delete(TABLE, {"ae_title": title}, int(clock.now().timestamp() * 1_000_000))
    await tables.with_keyspace(STATE_KEYSPACE).apply([write])
