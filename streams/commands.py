"""Commands of this room: `sijil worker`, `sijil archiver`; `sijil rebuild` is in streams.rebuild_process."""

from __future__ import annotations

from functools import partial

import click

from infra.settings import Settings


@click.command()
def worker() -> None:
    """Turn events into what can be searched and shown.

    Runs until it is stopped. Ends with status 75 when a rebuild has switched to other tables: start it again.
    """
    from infra import service
    from streams import worker_process

    settings = Settings.load("worker")
    service.run("worker", partial(worker_process.serve, settings), settings.log_level)


@click.command()
def archiver() -> None:
    """Compare copies of images, and copy what arrived into the locked archive.

    Gives way to receiving and searching. Runs until it is stopped.
    """
    from infra import service
    from streams import archiver_process

    settings = Settings.load("archiver")
    service.run("archiver", partial(archiver_process.serve, settings), settings.log_level)
