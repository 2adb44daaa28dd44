"""Storage, commitment, C-MOVE and C-GET on the real archive with other people's programs: what went in comes out."""

from __future__ import annotations

import os
import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from tests.archive import Archive, dataset, dcmtk, wait_until
from tests.bench.corpus import make_ct
from tests.crash.test_gateway_kill import free_port
from tests.local_stack import LocalStack
from tests.stack.commitment_scu import Modality
from tests.unit.consumers.dicom_door import storescp

pytestmark = [pytest.mark.connected]


def received(folder: Path) -> dict[str, bytes]:
    """SOP Instance UID → dataset's bytes."""
    files = [path.read_bytes() for path in folder.iterdir()]
    return {str(pydicom.dcmread(BytesIO(f), stop_before_pixels=True).SOPInstanceUID): dataset(f) for f in files}


@pytest.mark.client("dcmtk storescu", feature="C-STORE")
@pytest.mark.client("pynetdicom", feature="Storage Commitment")
@pytest.mark.client("dcmtk movescu", feature="C-MOVE")
@pytest.mark.client("dcmtk getscu", feature="C-GET")
def test_stored_committed_moved_and_fetched(whole: LocalStack, archive: Archive, tmp_path: Path) -> None:
    settings = archive.settings
    where = [settings.dicom_host, str(settings.dicom_port)]
    first, second = make_ct(tmp_path / "ct", studies=2, slices=5, seed=int.from_bytes(os.urandom(4), "big"), rows=64)
    sent = {i.sop: dataset(i.path.read_bytes()) for i in (*first, *second)}
    destination, title = free_port(), f"DEST{free_port()}"
    with Modality(f"MOD{free_port()}") as modality:
        for name, port in ((title, destination), (modality.title, modality.port)):
            added = whole.sijil("ae", "add", name, "127.0.0.1", str(port))
            assert added.returncode == 0, added.stderr

        def decided() -> bool:
            found = archive.json("/ae/changes")["changes"]
            return {("registered", title), ("registered", modality.title)} <= {(c["what"], c["subject"]) for c in found}

        wait_until(decided, 60, "both decisions are in the history")
        # One study comes by C-STORE, the other by STOW-RS to another gateway process.
        assert archive.storescu([i.path for i in first]).returncode == 0
        assert archive.stow([i.path.read_bytes() for i in second]).status_code == 200
        for study in (first[0].study, second[0].study):
            wait_until(lambda s=study: archive.instance_count(s) == 5, 60, "all are found")  # type: ignore[misc]
        # Both are committed at the DICOM door: one is in its spool, the other only in the read models.
        reported = wait_until(lambda: modality.ask(settings.dicom_port, "1.9.1", list(sent)) == 0 or None, 30, "asked")
        assert reported
        report = modality.report(30)
        assert (report.committed, report.failed) == (list(sent), {})
    asked = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={first[0].study}\\{second[0].study}"]
    with storescp(tmp_path / "moved", "+xa", port=destination) as folder:
        move = [dcmtk("movescu"), "-v", "-S", "-aec", "SIJIL", "-aem", title, *asked, *where]

        def moved() -> bool:  # the new row of the AE table is known at once, being read for each request
            said = subprocess.run(move, capture_output=True, text=True, timeout=60, check=False)
            return said.returncode == 0

        assert moved()
        assert received(folder) == sent
    (tmp_path / "got").mkdir()
    get = [dcmtk("getscu"), "+B", "-S", "-aec", "SIJIL", "-od", str(tmp_path / "got"), *asked, *where]
    said = subprocess.run(get, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert received(tmp_path / "got") == sent

    def actions() -> set[str]:
        trail = archive.json(f"/studies/{first[0].study}/accesses")
        return {a["action"] for a in trail["accesses"]} if isinstance(trail, dict) else {a["action"] for a in trail}

    wait_until(lambda: {"dicom-move", "dicom-get"} <= actions(), 30, "the reads are in the trail")
