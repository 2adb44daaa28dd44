"""Who may see patient data for what purpose, as a table. Pure.

Purposes are HL7 v3 PurposeOfUse codes, as XUA and IHE IUA carry them. There is one role until people have logins:
`local`, whoever reaches the door of this installation. What is refused is refused for every kind of data alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import Invalid

PURPOSE_HEADER = "Sijil-Purpose-Of-Use"
DEFAULT_PURPOSE = "TREAT"
LOCAL = "local"

_CODE = re.compile(r"[A-Z]{2,16}\Z")

ALLOWED = ""
RULES: Mapping[str, Mapping[str, str]] = {
    LOCAL: {
        "TREAT": ALLOWED,
        "ETREAT": ALLOWED,  # emergency treatment
        "CAREMGT": ALLOWED,  # care management
        "PATRQT": ALLOWED,  # the patient asked for it
        "HOPERAT": ALLOWED,  # running the hospital
        "HSYSADMIN": ALLOWED,  # running the archive
        "HQUALIMP": ALLOWED,  # improving quality
        "PATSFTY": ALLOWED,  # safety of the patient
        "HRESCH": "research-needs-deidentified-data",
        "CLINTRCH": "research-needs-deidentified-data",
        "PUBHLTH": "public-health-needs-aggregates",
        "HPAYMT": "payment-needs-no-images",
        "COVERAGE": "payment-needs-no-images",
        "HMARKT": "marketing",
    },
}
"""Role → purpose → reason of refusal; ALLOWED: none. A purpose that is not in the table is refused."""


@dataclass(frozen=True)
class Who:
    """Somebody who asks."""

    actor: str
    """Pseudonymous: `http:<client address>` until there are logins."""
    role: str
    purpose: str
    via: str = "http"
    address: str = ""


def purpose_of(header: str | None) -> str:
    """The purpose that a request states. Raises Invalid(`purpose-invalid`) for what is no code at all."""
    code = (header or DEFAULT_PURPOSE).strip()
    if not _CODE.match(code):
        raise Invalid("purpose-invalid", f"{PURPOSE_HEADER} must be a code of HL7 v3 PurposeOfUse")
    return code


def refusal(who: Who) -> str:
    """Why somebody may not see patient data; ALLOWED if they may."""
    rules = RULES.get(who.role)
    if rules is None:
        return "role-unknown"
    return rules.get(who.purpose, "purpose-unknown")
