"""`sijil token`, `sijil users`: the embedded issuer from the command line, for whoever owns its secrets."""

from __future__ import annotations

import click

from infra.identity.keys import IssuerKeys
from infra.identity.users import Users
from infra.settings import Settings
from schemas.errors import Invalid
from schemas.roles import Role

TOKEN_HOURS_MAX = 24
GIVEN = [str(r) for r in Role if r is not Role.LOCAL]


def _parts() -> tuple[Settings, Users, IssuerKeys]:
    settings = Settings.load("api")
    if settings.oidc_issuer:
        raise Invalid("issuer", f"tokens and users are of {settings.oidc_issuer}, not of this machine")
    secrets = settings.home / "secrets"
    return settings, Users(secrets), IssuerKeys(secrets)


@click.command("token")
@click.argument("role", type=click.Choice(GIVEN))
@click.option("--site", "sites", multiple=True, help="A site of theirs; may be repeated. Default: this installation's.")
@click.option("--person", default="", help="Person id of staff. Default: that of the user of this role.")
@click.option("--patient", default="", help="Patient key whose file is theirs (role patient).")
@click.option("--service", default="", help="A service of this name instead of a person.")
@click.option(
    "--hours",
    type=click.FloatRange(0.01, TOKEN_HOURS_MAX),
    default=1.0,
    show_default=True,
    help="It is good for so long.",
)
def token(role: str, sites: tuple[str, ...], person: str, patient: str, service: str, hours: float) -> None:
    """Print a bearer token of the embedded issuer: curl -H "Authorization: Bearer $(sijil token doctor)" …"""
    from infra.identity.minting import mint  # the issuer: most commands need none of it

    settings, _, _ = _parts()
    seconds = round(hours * 3600)
    click.echo(
        mint(settings, Role(role), sites=sites, person=person, patient=patient, service=service, seconds=seconds)
    )


@click.group("users")
def users() -> None:
    """Who may log in at the embedded issuer. Passwords are in <home>/secrets/users.txt."""


@users.command("put")
@click.argument("name")
@click.argument("role", type=click.Choice(GIVEN))
@click.option("--site", "sites", multiple=True, help="A site of theirs; may be repeated.")
@click.option("--person", default="", help="Their person id.")
@click.option("--patient", default="", help="Patient key whose file is theirs (role patient).")
def put(name: str, role: str, sites: tuple[str, ...], person: str, patient: str) -> None:
    """Add NAME, or change what they are, and print their new password."""
    _, known, _ = _parts()
    click.echo(known.put(name, Role(role), sites=list(sites), patient_key=patient, person_id=person))


@users.command("list")
def list_command() -> None:
    """Show who there is."""
    _, known, _ = _parts()
    for user in known.all():
        click.echo(f"{user.username}\t{user.role}\t{','.join(user.sites)}\t{user.person_id or 'service'}")


@users.command("rotate-key")
def rotate_key() -> None:
    """Sign tokens with a new key from now on; those that are out stay valid until they expire."""
    _, _, keys = _parts()
    click.echo(keys.rotate())


COMMANDS = (token, users)
