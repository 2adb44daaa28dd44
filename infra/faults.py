"""Places where a crash test may end this process, by SIGKILL: nothing is flushed, nothing is closed.

A shell marks the gap between two numbered steps: `faults.point("chain.after-fsync")`. The environment variable
SIJIL_FAULT names the point to die at, `chain.after-fsync` or `chain.after-fsync:3` for its third passing. Without it a
point is one comparison.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "SIJIL_FAULT"

_name, _, _count = os.environ.get(VARIABLE, "").partition(":")
_lock = threading.Lock()
_left = int(_count or 1)


def point(name: str) -> None:
    """Die here if this is the point, and the passing, that SIJIL_FAULT names."""
    global _left
    if name != _name:
        return
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
