"""`sijil ae add|list|test`: who may call, and where to send."""

from __future__ import annotations

import click


@click.group()
def ae() -> None:
    """The table of DICOM application entities: who may call this archive, and where it may send."""
