"""`sijil kafka-grants`: what each role may do on the log, as commands for whoever runs the cluster."""

from __future__ import annotations

import shlex

import click

from infra.kafka_grants import Grant, grants


def line(grant: Grant) -> str:
    """The arguments of `kafka-acls.sh` for one grant."""
    words = ["kafka-acls.sh", "--bootstrap-server", "$BROKERS", "--command-config", "$ADMIN", "--add"]
    words += ["--allow-principal" if grant.allowed else "--deny-principal", grant.principal]
    words += ["--operation", "".join(w.capitalize() for w in grant.operation.split("_"))]
    words += ["--cluster"] if grant.kind == "cluster" else [f"--{grant.kind}", grant.name]
    words += ["--resource-pattern-type", "prefixed"] if grant.prefixed else []
    return " ".join(w if w.startswith("$") else shlex.quote(w) for w in words)


@click.command("kafka-grants")
def command() -> None:
    """Print the ACLs that a cluster needs, as commands of Kafka's own tool. The local stack has them already.

    The users are SIJIL_KAFKA_USERNAME of each role: sijil_gateway, sijil_api and so on.
    """
    for grant in grants():
        click.echo(line(grant))
