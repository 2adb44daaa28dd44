"""glibc's allocator, told to keep the memory it has: a process that takes in pieces of some 100 KiB all day long would
otherwise get each from the kernel, page by page and zeroed, and give it back (a tenth of the CPU time of STOW-RS).
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
KEPT_BYTES_MAX = 64 << 20
"""Free memory at the end of the heap that is not given back."""
OWN_MAPPING_BYTES = 32 << 20
"""From this size on an allocation is a mapping of its own, given back when it is freed."""


def keep_pages() -> None:
    """Once, at the start of a process. Another C library is left as it is."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
    mallopt(_M_TOP_PAD, 4 << 20)
