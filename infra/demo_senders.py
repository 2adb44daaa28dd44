"""What the demo sends, and how: pydicom's files by C-STORE and by STOW-RS, as devices and PACS do."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pydicom
import urllib3
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context

from infra.settings import Settings

CONTEXTS_MAX = 120
"""Presentation contexts of one association: PS3.8 allows 128."""
STOW_FILES = 10
SEPARATOR = "sijil-demo-part"


@dataclass
class Sent:
    """One file, what became of it, and what it holds."""

    path: Path
    door: str
    study: str = ""
    series: str = ""
    sop: str = ""
    sop_class: str = ""
    syntax: str = ""
    dataset_sha256: str = ""
    size: int = 0
    acknowledged: bool = False
    reason: str = ""


def corpus() -> list[Path]:
    """DICOM files that pydicom and pydicom-data ship, by path: pydicom's own finder would try to download."""
    roots = [Path(pydicom.__file__).parent / "data" / "test_files"]
    extra = find_spec("data_store")
    if extra is not None and extra.origin:
        roots.append(Path(extra.origin).parent / "data")
    found = (p for root in roots for p in sorted(root.rglob("*")) if p.is_file())
    return [p for p in found if p.suffix in (".dcm", "") and not p.name.startswith(".")]


def look(path: Path) -> Sent:
    """What a sender knows of its file. Whatever it cannot read goes by STOW-RS, as it is, for the archive to judge."""
    sent = Sent(path, "STOW-RS", size=path.stat().st_size)
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote values
            ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            sent.syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
            sent.study, sent.series = str(ds.get("StudyInstanceUID", "")), str(ds.get("SeriesInstanceUID", ""))
            sent.sop, sent.sop_class = str(ds.get("SOPInstanceUID", "")), str(ds.get("SOPClassUID", ""))
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError, EOFError, OSError):
        return sent
    sent.dataset_sha256 = dataset_sha256(path.read_bytes())
    return sent


def dataset_sha256(part10: bytes) -> str:
    """SHA-256 of what follows the File Meta (PS3.10 §7.1); empty where its length is not given."""
    if part10[128:136] != b"DICM\x02\x00\x00\x00":
        return ""
    end = 144 + int.from_bytes(part10[140:144], "little")
    return hashlib.sha256(memoryview(part10)[end:]).hexdigest()


# ------------------------------------------------------------------------------------------------ step 1: send


def send_dimse(settings: Settings, files: Sequence[Sent]) -> Iterator[Sent]:
    """C-STORE of each file as it is on disk; yields each when it is answered."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # the file's own bytes: no re-encoding on the way
    pairs = sorted({(s.sop_class, s.syntax) for s in files})
    for at in range(0, len(pairs), CONTEXTS_MAX):
        chosen = pairs[at : at + CONTEXTS_MAX]
        ae = AE(ae_title="SIJILDEMO")
        ae.requested_contexts = [build_context(UID(c), UID(t)) for c, t in chosen]
        assoc = ae.associate(settings.dicom_host, settings.dicom_port, ae_title=settings.ae_title)
        mine = [s for s in files if (s.sop_class, s.syntax) in chosen]
        if not assoc.is_established:
            for sent in mine:
                sent.reason = "association rejected"
            yield from mine
            continue
        for sent in mine:
            try:
                status = assoc.send_c_store(sent.path)
                code = status.Status if "Status" in status else None
                sent.acknowledged = code is not None and (code == 0 or code >> 12 == 0xB)
                if not sent.acknowledged:
                    comment = str(status.get("ErrorComment", ""))
                    sent.reason = f"{code:04X} {comment}" if code is not None else "no answer"
            except ValueError:
                sent.reason = "presentation context refused"
            yield sent
        assoc.release()


def send_stow(
    http: urllib3.PoolManager, base: str, files: Sequence[Sent], authorization: Mapping[str, str]
) -> Iterator[Sent]:
    """STOW-RS in requests of some files; yields each file when it is answered."""
    for at in range(0, len(files), STOW_FILES):
        batch = files[at : at + STOW_FILES]
        part = b"\r\n--" + SEPARATOR.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(part + s.path.read_bytes() for s in batch) + b"\r\n--" + SEPARATOR.encode() + b"--\r\n"
        answer = http.request(
            "POST",
            f"{base}/dicom-web/studies",
            body=body,
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={SEPARATOR}',
                "Accept": "application/dicom+json",
                **authorization,
            },
        )
        # Only these statuses come with a Store Instances Response Module (PS3.18 Table 10.5.3-1).
        stored, failed = _stow_answer(answer.data if answer.status in (200, 202, 409) else b"{}")
        for sent in batch:
            sent.acknowledged = stored[sent.sop] > 0
            stored[sent.sop] -= 1
            if not sent.acknowledged:
                reasons = failed[sent.sop] or failed[""]
                sent.reason = reasons.pop(0) if reasons else f"HTTP {answer.status}"
            yield sent


def _stow_answer(body: bytes) -> tuple[Counter[str], dict[str, list[str]]]:
    """(SOP UID → times stored, SOP UID → FailureReasons in hex) of a STOW-RS response (PS3.18 §10.5.3)."""
    answer = json.loads(body)
    stored = Counter(value_of(item, "00081155") for item in answer.get("00081199", {}).get("Value", ()))
    failed: dict[str, list[str]] = defaultdict(list)
    # FailedSOPSequence, and OtherFailuresSequence for what has no SOP Instance UID.
    for item in (*answer.get("00081198", {}).get("Value", ()), *answer.get("0008119A", {}).get("Value", ())):
        failed[value_of(item, "00081155")].append(f"{int(value_of(item, '00081197') or 0):04X}")
    return stored, failed


def value_of(item: dict[str, Any], tag: str) -> str:
    """First value of an attribute in DICOM JSON, as text; empty if there is none."""
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])
