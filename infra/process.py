"""What a process asks of the operating system and of its interpreter about itself."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
SWITCH_S = 0.0005
"""How long a computing thread keeps the interpreter from one that has something to do. Python's 5 ms are waited at each
hand-over of an instance (socket, file, fsync, answer) while the same process uploads packs: STOW-RS by four clients was
acknowledged 1.3 to 1.5 times as fast with 0.5 ms, by one client 1.1 times, for no more CPU."""


def prompt_threads() -> None:
    """Let threads that wait for a peer or a disk have the interpreter soon (sys.setswitchinterval)."""
    sys.setswitchinterval(SWITCH_S)


def give_way(nice: int) -> None:
    """Let others of this process have the processor first: this thread alone (on Linux a thread has its own value)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def die_with_parent() -> None:
    """End this process when its parent ends, however that ends (prctl(2)): a SIGKILL leaves no orphan. Linux only."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the prctl
        os._exit(1)
