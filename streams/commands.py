"""Commands of this room: `sijil worker`, `sijil archiver`, `sijil rebuild`."""

from __future__ import annotations

from functools import partial

import click

from infra.settings import Settings


@click.command()
def worker() -> None:
    """Turn events into what can be searched and shown.

    Runs until it is stopped. Ends with status 75 when a rebuild has switched to other tables: start it again.
    """
    from streams import service, worker_process

    settings = Settings.load("worker")
    service.run("worker", partial(worker_process.serve, settings), settings.log_level)
