"""Who may send HL7 v2, and for which site: a row for each facility (MSH-4) in `sijil_state.hl7_senders`.

The facility `*` stands for any that sends from its addresses: the local stack has one such row, for this machine
itself. A facility that has a row of its own is nobody else's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from infra import clock
from infra.mllp import Peer
from infra.ports import Tables
from schemas.errors import Invalid
from schemas.tables import STATE_KEYSPACE, Upsert

ANY = "*"
TABLE = "hl7_senders"
FACILITY_MAX = 64
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True)
class Sender:
    """One facility.

    `network`: address or network it sends from (`10.2.0.0/16`). `site`: whose results, orders and patients it sends;
    empty: the archive's own. `issuer`: who issues its patients' numbers; empty: its site. `certificate`: SHA-256 (hex)
    of the certificate it must prove itself with; empty: its address says enough.
    """

    facility: str
    network: str
    site: str = ""
    issuer: str = ""
    certificate: str = ""


def checked(sender: Sender) -> Sender:
    """`sender` if it can be one. Raises Invalid."""
    if not 1 <= len(sender.facility) <= FACILITY_MAX or not sender.facility.isprintable():
        raise Invalid("hl7-facility", f"a facility is MSH-4 as it is sent: 1 to {FACILITY_MAX} characters, or *")
    try:
        ipaddress.ip_network(sender.network, strict=False)
    except ValueError as e:
        raise Invalid("hl7-network", f"{sender.network!r} is no address and no network (10.2.0.0/16)") from e
    if sender.site and not _SITE.match(sender.site):
        raise Invalid("hl7-site", f"{sender.site!r} is no site")
    if sender.certificate and not re.fullmatch("[0-9a-f]{64}", sender.certificate):
        raise Invalid("hl7-certificate", "a certificate is named by its SHA-256: 64 hexadecimal digits")
    return sender


def find(table: Iterable[Sender], facility: str, peer: Peer) -> Sender | None:
    """The row under which `peer` may send for a facility: its own, or that of any if it has none. None: it may not."""
    known = [*table]
    rows = [s for s in known if s.facility == facility] or [s for s in known if s.facility == ANY]
    address = ipaddress.ip_address(peer.address.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return next(
        (
            s
            for s in rows
            if s.certificate in ("", peer.certificate) and address in ipaddress.ip_network(s.network, strict=False)
        ),
        None,
    )


async def read(tables: Tables) -> list[Sender]:
    """Every row, by facility. Raises Transient."""
    state = tables.with_keyspace(STATE_KEYSPACE)
    names = ("facility", "network", "site", "issuer", "certificate")
    return sorted(
        [Sender(*(r[n] or "" for n in names)) async for r in state.scan(TABLE)], key=lambda sender: sender.facility
    )


async def add(tables: Tables, sender: Sender) -> None:
    """Add or replace the row of its facility. Raises Invalid, Transient."""
    columns = asdict(checked(sender))
    key = {"facility": columns.pop("facility")}
    write = Upsert(TABLE, key, columns, int(clock.now().timestamp() * 1_000_000))
    await tables.with_keyspace(STATE_KEYSPACE).apply([write])
