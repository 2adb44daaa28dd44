"""What the decoders' processes can do is known in a process that has no decoder itself."""

from __future__ import annotations

import subprocess
import sys

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import AllTransferSyntaxes

from consumers.api.decoders import DECODABLE

DOOR = """
import asyncio, os, sys
from importlib.metadata import entry_points
from infra.unloaded import DECODERS, keep_out

if __name__ == "__main__":
    keep_out(*DECODERS)
    for entry in entry_points(group="sijil.http"):
        entry.load()
    assert not [name for name in DECODERS if sys.modules[name] is not None]

    from consumers.api.decoders import Decoders
    from tests.unit.consumers.archive import sample

    decoders = Decoders(1)
    print(len(asyncio.run(decoders.explicit(sample("JPEG2000.dcm")))), flush=True)
    decoders.close()
    os._exit(0)  # as `infra.service` ends a process
"""


def available(transfer_syntax: str) -> bool:
    try:
        return bool(get_decoder(transfer_syntax).is_available)
    except NotImplementedError:
        return False


def test_the_table_is_what_is_installed() -> None:
    assert {str(s) for s in AllTransferSyntaxes if available(s)} == DECODABLE


def test_a_door_without_decoders_has_pixels_decoded() -> None:
    done = subprocess.run([sys.executable, "-c", DOOR], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 512 * 512
    assert done.stderr == "", "nothing that the processes shared is left behind"
