"""Can this machine take the stack? Ports, disk, memory; each fault is one line that says what to do."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence

import psutil

from infra.settings import ENV_PREFIX, Settings
from infra.stack.errors import StackError
from infra.stack.parts import SERVERS, Part


def check(settings: Settings, parts: Sequence[Part]) -> None:
    """Raises StackError at the first thing that is missing."""
    for part in parts:
        for setting, port in part.ports(settings):
            _port(part.name, setting, port)
    free_mb = shutil.disk_usage(settings.home).free >> 20
    if free_mb < settings.stack_min_disk_mb:
        raise StackError(
            f"only {free_mb} MB of disk are free at {settings.home}, {settings.stack_min_disk_mb} are needed:"
            f" free some, or move it with {ENV_PREFIX}HOME ({ENV_PREFIX}STACK_MIN_DISK_MB changes the limit)"
        )
    available_mb = psutil.virtual_memory().available >> 20
    if any(p.stage == SERVERS for p in parts) and available_mb < settings.stack_min_memory_mb:
        raise StackError(
            f"only {available_mb} MB of memory are available, {settings.stack_min_memory_mb} are needed: end other"
            f" programs ({ENV_PREFIX}STACK_MIN_MEMORY_MB changes the limit)"
        )


def _port(part: str, setting: str, port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as e:
            raise StackError(
                f"port {port} for {part} is taken{_holder(port)}: end that program, or set"
                f" {ENV_PREFIX}{setting.upper()} to another port ({ENV_PREFIX}PORT_OFFSET=100"
                " moves all ports of this installation)"
            ) from e


def _holder(port: int) -> str:
    """` by NAME (pid N)`, as far as this user may know."""
    try:
        for c in psutil.net_connections("tcp"):
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid:
                return f" by {psutil.Process(c.pid).name()} (pid {c.pid})"
    except psutil.Error:
        pass
    return ""
