"""What the embedded issuer starts with: a signing key, and a user of every role."""

from __future__ import annotations

from infra.identity.keys import IssuerKeys
from infra.identity.users import Users
from infra.settings import Settings


def ensure(settings: Settings) -> None:
    """Make what is missing, unless an OIDC provider is set."""
    if settings.oidc_issuer:
        return
    secrets = settings.home / "secrets"
    IssuerKeys(secrets).ensure()
    Users(secrets).ensure(settings.site)
