"""What clients do with a study on the real servers: read it at once, in part, rendered, on a medium; be told of it."""

from __future__ import annotations

import gc
import io
import json
import subprocess
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.fileset import FileSet

from schemas.read_token import HEADER as READ_TOKEN
from tests.archive import Archive, dcmtk, wait_until
from tests.unit.consumers.archive import part10

pytestmark = [pytest.mark.connected, pytest.mark.filterwarnings("ignore")]

STUDY = "1.2.826.0.1.3680043.10.89.1"
SERIES = f"{STUDY}.1"
PATH = f"/dicom-web/studies/{STUDY}"
ONE = f"{PATH}/series/{SERIES}/instances/{SERIES}.1"


@pytest.fixture(autouse=True)
def _directories_are_let_go() -> Iterator[None]:
    """pydicom's FileSet has a folder that it leaves to the garbage collector, which complains."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def files(count: int) -> list[bytes]:
    pixels = np.random.default_rng(5).integers(0, 4096, 64 * 64, dtype="<u2").tobytes()
    return [
        part10(f"{SERIES}.{n}", study=STUDY, series=SERIES, rows=64, columns=64, pixels=pixels, PatientID=STUDY)
        for n in range(1, count + 1)
    ]


def followed(archive: Archive, found: list[dict[str, object]], stop: threading.Event) -> None:
    """Collect what is pushed until told otherwise."""
    with httpx.stream("GET", f"{archive.base}/changes/events", timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
            if stop.is_set():
                return


@pytest.fixture
def pushed(archive: Archive) -> Iterator[list[dict[str, object]]]:
    """What the archive pushes from now on."""
    found: list[dict[str, object]] = []
    stop = threading.Event()
    thread = threading.Thread(target=followed, args=(archive, found, stop), daemon=True)
    thread.start()
    yield found
    stop.set()


def types_of(changes: list[dict[str, object]]) -> set[object]:
    return {c["type"] for c in changes if c["study_uids"] == [STUDY]}


@pytest.mark.client("pydicom FileSet", feature="application/zip with DICOMDIR")
@pytest.mark.client("dcmtk dcmdump", feature="application/zip with DICOMDIR")
@pytest.mark.client("httpx", feature="Change feed and its events")
@pytest.mark.client("httpx", feature="Read token, ranges, tags")
def test_a_study_from_its_store_to_its_medium(
    archive: Archive, pushed: list[dict[str, object]], tmp_path: Path
) -> None:
    begin = archive.json("/changes?since=now")["next"]
    data = files(3)
    stored = archive.stow(data)
    assert stored.status_code == 200

    # The next read has it, without waiting on the client's side.
    token = stored.headers[READ_TOKEN]
    series = archive.get(f"{PATH}/series/{SERIES}/metadata", **{READ_TOKEN: token})
    assert series.status_code == 200
    assert len(series.json()) == 3
    assert series.headers["content-encoding"] == "gzip"

    # A second look costs nothing, a part is a part.
    whole = archive.get(ONE, "application/dicom")
    assert whole.content == data[0]
    assert archive.get(ONE, "application/dicom", **{"If-None-Match": whole.headers["etag"]}).status_code == 304
    ranged = archive.get(ONE, "application/dicom", Range="bytes=100-299")
    assert (ranged.status_code, ranged.content) == (206, data[0][100:300])

    # Pictures.
    picture = archive.get(f"{ONE}/rendered?window=2048,4096,linear-exact", "image/png")
    seen = np.asarray(Image.open(io.BytesIO(picture.content)))
    expected = pydicom.dcmread(io.BytesIO(data[0])).pixel_array / 4096 * 255
    assert np.abs(seen - expected).max() <= 1
    assert Image.open(io.BytesIO(archive.get(f"{PATH}/thumbnail", "image/jpeg").content)).size == (128, 128)

    # A medium that others read.
    medium = archive.get(PATH, "application/zip")
    with zipfile.ZipFile(io.BytesIO(medium.content)) as found:
        found.extractall(tmp_path)
    directory = FileSet(pydicom.dcmread(tmp_path / "DICOMDIR"))
    sent = {f"{SERIES}.{n}": file for n, file in enumerate(data, 1)}
    assert {str(i.SOPInstanceUID): Path(i.path).read_bytes() for i in directory} == sent
    said = subprocess.run(
        [dcmtk("dcmdump"), "-q", str(tmp_path / "DICOMDIR")], capture_output=True, check=False, timeout=30
    )
    assert said.returncode == 0

    # Others were told, once pushed and once asked for.
    wait_until(lambda: types_of(pushed) >= {"study.arrived", "study.completed"}, 30, "changes are pushed")
    asked: list[dict[str, object]] = []
    since, more = begin, True
    while more:
        page = archive.json(f"/changes?since={since}&limit=3")
        asked, since, more = asked + page["changes"], page["next"], page["more"]
    assert types_of(asked) >= {"study.arrived", "study.completed"}
    assert sum(c["type"] == "study.arrived" and c["study_uids"] == [STUDY] for c in asked) == 1

    def recorded() -> bool:
        actions = {a["action"] for a in archive.json(f"/studies/{STUDY}/accesses")["accesses"]}
        return {"read-metadata", "retrieve", "retrieve-rendered", "retrieve-thumbnail"} <= actions

    wait_until(recorded, 20, "each kind of look is on record")
