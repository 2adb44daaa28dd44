"""Tokens for commands of whoever owns the installation: they can read the embedded issuer's key, so they may."""

from __future__ import annotations

from dataclasses import replace

from infra.identity.app import embedded_url
from infra.identity.issuer import Issuer
from infra.identity.keys import IssuerKeys
from infra.identity.users import User, Users
from infra.settings import Settings
from schemas.errors import Defect
from schemas.identity import derived_id
from schemas.roles import Role

SECONDS = 3600


def mint(
    settings: Settings,
    role: Role,
    *,
    sites: tuple[str, ...] = (),
    person: str = "",
    patient: str = "",
    service: str = "",
    seconds: int = SECONDS,
) -> str:
    """A token as the embedded issuer of this installation gives them; of the user of that role, where there is one.

    Raises Defect where its key cannot be read.
    """
    secrets = settings.home / "secrets"
    users = Users(secrets)
    is_service = bool(service) or role in (Role.GATEWAY, Role.EHR)
    user = User(
        username=service or str(role),
        role=str(role),
        digest="",
        sites=list(sites or (settings.site,)),
        person_id="" if is_service else person or derived_id("person", "embedded", str(role)),
        patient_key=patient,
        service=is_service,
    )
    known = users.get(user.username) if users.exists else None
    if known is not None and known.role == user.role:
        person_id = user.person_id and (person or known.person_id)
        user = replace(user, patient_key=patient or known.patient_key, person_id=person_id)
    issuer = Issuer(
        IssuerKeys(secrets),
        users,
        url=embedded_url(settings),
        audience=settings.oidc_audience,
        client_id=settings.oidc_client_id,
    )
    return issuer.access_token(user, seconds=seconds)


def authorization(settings: Settings, role: Role) -> dict[str, str]:
    """The header with which a command calls the HTTP door: SIJIL_TOKEN, else a token of the embedded issuer for `role`;
    none where neither is there: the door then says what is needed.
    """
    token = settings.token
    if not token and not settings.oidc_issuer:
        try:
            token = mint(settings, role)
        except Defect:
            return {}
    return {"Authorization": f"Bearer {token}"} if token else {}
