"""Somebody who asks, at any door: pseudonymous, in one role, for one purpose. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.roles import Role

Via = Literal["http", "dimse", "page"]

ALL_SITES = "*"
"""In `sites`: every site."""


@dataclass(frozen=True)
class Caller:
    """Who asks. What stands in access events is `actor`, `role` and `purpose`; never a name."""

    actor: str
    """`person:<id>`, `service:<client id>`, `ae:<title>@<address>`, or `http:<address>` of one without credentials."""
    role: Role
    purpose: str
    """Code of HL7 v3 PurposeOfUse."""
    sites: frozenset[str] = frozenset()
    """Sites whose studies are theirs."""
    person_id: str = ""
    """Of staff: the id of `person.*` events."""
    patient_key: str = ""
    """Of a patient: whose file is theirs."""
    via: Via = "http"
    address: str = ""
    """IP address they call from."""
