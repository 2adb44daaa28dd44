"""Modules that a process never uses, kept from being loaded by others that would take them where they are installed."""

from __future__ import annotations

import sys
from typing import Final, cast

DECODERS: Final = ("gdcm", "pylibjpeg", "requests")
"""What pydicom loads by itself to decode pixels and to fetch its test files: 27 MB of memory in a process that reads
headers, and has pixels decoded by processes of their own.
"""


def keep_out(*names: str) -> None:
    """From now on their import is an ImportError, unless they are there already. Other processes have them still."""
    modules = cast("dict[str, object]", sys.modules)
    for name in names:
        modules.setdefault(name, None)
