"""`sijil certs`: a CA and certificates for trying TLS. Where there is a real CA, its certificates are used instead."""

from __future__ import annotations

import click
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from infra.settings import Settings
from infra.stack.trial_ca import HERE, authority, issue, write

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""Devices and this archive call each other."""


@click.command("certs")
@click.option("--host", "hosts", multiple=True, help="Name or address by which clients reach the doors; repeatable.")
@click.option("--client", "clients", multiple=True, help="AE title or name of a client that gets one; repeatable.")
def command(hosts: tuple[str, ...], clients: tuple[str, ...]) -> None:
    """Make a trial CA and certificates under HOME/tls, and print the settings that turn TLS on at the doors.

    Between the doors and the local stack's servers `SIJIL_STACK_TLS=1` turns it on, with certificates of the same CA.

    Run again it keeps the CA and makes the certificates anew. For trying: the CA's key lies beside them.
    """
    folder = Settings.load("admin").home / "tls"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = authority(folder)
    names = tuple(dict.fromkeys((*HERE, *hosts)))
    write(folder / "server", issue(ca, "sijil", names, *BOTH))
    for client in clients:
        made = issue(ca, client, (), *BOTH)
        write(folder / f"client-{client}", made)
        click.echo(
            f"# {client}: {folder}/client-{client}.pem, fingerprint {made[0].fingerprint(hashes.SHA256()).hex()}"
        )
    for door in ("HTTPS", "DICOM_TLS"):
        click.echo(f"SIJIL_{door}_CERTIFICATE={folder}/server.pem")
        click.echo(f"SIJIL_{door}_KEY={folder}/server.key")
    click.echo(f"SIJIL_DICOM_TLS_CA={folder}/ca.pem")
