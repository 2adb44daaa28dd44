"""What a decoder's process may do to its door. A module of its own: each process imports it anew."""

from __future__ import annotations

import os
import signal
import time


def dies(part10: bytes) -> bytes:
    """As a decoder does that writes where it must not."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return part10


def sleeps(part10: bytes, seconds: float) -> bytes:
    """As a decoder does that never comes back."""
    time.sleep(seconds)
    return part10
