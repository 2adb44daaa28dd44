"""Every file of pydicom and of pydicom-data through both doors: stored byte for byte, but for a closed list."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context

from producers.dicom.contexts import accept
from producers.dicom.part10 import parse_file_meta
from producers.refusals import REFUSALS
from schemas.errors import Invalid
from tests.stack.gateway_doors import Doors, open_doors

REFUSED: dict[str, str] = {
    # no instances
    "README.txt": "not-dicom",
    "README": "not-dicom",
    "crayons.icc": "not-dicom",
    "rtplan.dump": "not-dicom",
    "rtstruct.dump": "not-dicom",
    "test1.json": "not-dicom",
    "test_PN.json": "not-dicom",
    "zipMR.gz": "not-dicom",
    "DICOMDIR": "dicomdir",
    "DICOMDIR-bigEnd": "dicomdir",
    "DICOMDIR-empty.dcm": "dicomdir",
    "DICOMDIR-implicit": "dicomdir",
    "DICOMDIR-nooffset": "dicomdir",
    "DICOMDIR-nopatient": "dicomdir",
    "DICOMDIR-reordered": "dicomdir",
    # a dataset that begins with a group length of group 0002's form and is none, or names no transfer syntax
    "no_meta.dcm": "not-dicom",
    "meta_missing_tsyntax.dcm": "no-transfer-syntax",
    # cut
    "MR_truncated.dcm": "truncated",
    "rtplan_truncated.dcm": "truncated",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "truncated",
    # without the UIDs that an instance has
    "JPEGLSNearLossless_08.dcm": "uid-missing",
    "JPEGLSNearLossless_16.dcm": "uid-missing",
    "SC_rgb_jls_lossy_line.dcm": "uid-missing",
    "SC_rgb_jls_lossy_sample.dcm": "uid-missing",
    "UN_sequence.dcm": "uid-missing",
    "empty_charset_LEI.dcm": "uid-missing",
    "nested_priv_SQ.dcm": "uid-missing",
    "no_meta_group_length.dcm": "uid-missing",
    "priv_SQ.dcm": "uid-missing",
    "bad_sequence.dcm": "uid-invalid",
}
"""File name → reason, at the STOW-RS door."""

BY_COMMAND: dict[str, str] = {
    # File Meta, from which a sender makes its command, names another SOP instance or class than the dataset
    "badVR.dcm": "sop-instance-mismatch",
    "bad_sequence.dcm": "sop-instance-mismatch",
    "rtdose.dcm": "sop-instance-mismatch",
    "rtdose_1frame.dcm": "sop-instance-mismatch",
    "rtdose_expb.dcm": "sop-instance-mismatch",
    "rtdose_expb_1frame.dcm": "sop-instance-mismatch",
    "rtplan.dcm": "sop-instance-mismatch",
}
"""What only the C-STORE door refuses."""


def corpus() -> list[Path]:
    """By path: pydicom's own finder would try to download."""
    spec = find_spec("data_store")
    assert spec is not None
    assert spec.origin is not None
    roots = [Path(pydicom.__file__).parent / "data" / "test_files", Path(spec.origin).parent / "data"]
    return [p for root in roots for p in sorted(root.rglob("*")) if p.is_file()]


def newest_reason(doors: Doors, count: int) -> str:
    """Of the rejection that is number `count`; its event is kept before the answer, and in the log soon after."""
    doors.until(lambda: len(doors.rejected()) >= count)
    return doors.rejected()[count - 1].reason


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    with open_doors(tmp_path / "home", monkeypatch) as both:
        yield both


@pytest.mark.slow
def test_stow(doors: Doors) -> None:
    refused: list[tuple[str, str]] = []
    kept = set()
    for path in corpus():
        data = path.read_bytes()
        answer = httpx.post(
            doors.url + "/studies", content=data, headers={"Content-Type": "application/dicom"}, timeout=60
        )
        if answer.status_code == 200:
            kept.add(sha256(data))
            continue
        assert answer.status_code == (409 if data else 400), path.name
        refused.append((path.name, newest_reason(doors, len(refused) + 1)))
        found = answer.json()
        (item,) = (found.get("00081198") or found["0008119A"])["Value"]
        assert item["00081197"]["Value"] == [REFUSALS[refused[-1][1]].status]
    assert set(refused) == set(REFUSED.items())
    doors.until(lambda: {sha256(data) for _, data in doors.members()} == kept, 30)
    assert len(kept) > 200


@pytest.mark.slow
def test_c_store(doors: Doors) -> None:
    refused: list[tuple[str, str]] = []
    kept = set()
    for path in corpus():
        data = path.read_bytes()
        try:
            meta = parse_file_meta(data)
        except Invalid:
            continue  # nothing that a sender could send
        uids = (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax)
        if meta.marks or not all(uids) or accept(meta.sop_class_uid, [meta.transfer_syntax]) is None:
            continue
        ae = AE("CORPUS")
        ae.requested_contexts = [build_context(UID(meta.sop_class_uid), meta.transfer_syntax)]
        assoc = ae.associate("127.0.0.1", doors.dicom_port, ae_title="SIJIL")
        try:
            status = assoc.send_c_store(path).Status
        except (AttributeError, ValueError):
            continue  # pynetdicom cannot read what it should send
        finally:
            assoc.release()
        if status == 0:
            kept.add(sha256(memoryview(data)[meta.dataset_offset :]))
        else:
            refused.append((path.name, newest_reason(doors, len(refused) + 1)))
            assert status == REFUSALS[refused[-1][1]].status
    expected = {**REFUSED, **BY_COMMAND}
    assert set(refused) <= set(expected.items())
    assert set(BY_COMMAND.items()) <= set(refused)
    assert len(kept) > 190

    def datasets() -> set[str]:
        return {sha256(memoryview(f)[parse_file_meta(f).dataset_offset :]) for _, f in doors.members()}

    doors.until(lambda: datasets() == kept, 30)
