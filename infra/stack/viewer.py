"""The viewer that the local stack serves: OHIF, prebuilt, from npm (MIT).

npm fetches the package, its SHA-512 is compared with the one written here, and what the archive needs of it is
unpacked: about 50 of 213 MB, without its neural networks, the viewer of microscopes, and source maps.
"""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

from infra.settings import Settings
from infra.stack import kept, npm

PACKAGE = "@ohif/app@3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
LEFT_OUT = ("ort/", "dicom-microscopy-viewer/", "customizations/", "sw.js", "google.js", "_headers", "_redirects")
"""Under dist/. The service worker and the sign-in of another cloud would call other hosts."""
_ROOT = "package/dist/"
_LICENCE = "package/LICENSE"


def install(settings: Settings) -> Path:
    """Folder with the viewer, fetched unless it is there. Raises StackError: the rest of the stack works without."""
    wanted = hashlib.sha256(f"{INTEGRITY} {LEFT_OUT}".encode()).hexdigest()
    return kept.once(settings.viewer, wanted, lambda work: _unpack(npm.fetch(PACKAGE, INTEGRITY, work), work / "new"))


def _unpack(archive: Path, target: Path) -> Path:
    target.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(_ROOT)
            wanted = name != member.name and not name.startswith(LEFT_OUT) and not name.endswith(".map")
            if not member.isfile() or not (wanted or member.name == _LICENCE):
                continue
            member.name = name if wanted else "LICENSE"
            tar.extract(member, target, filter="data")
    return target
