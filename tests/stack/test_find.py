"""DCMTK's findscu asks the DICOM door: levels, character sets, cancel, statuses, the trail."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from tests.archive import Archive, dcmtk, wait_until
from tests.unit.consumers.archive import part10

pytestmark = pytest.mark.connected

STUDY = "1.2.826.0.1.3680043.8.498.77"
NAMES = ("Hassan^Mona=منى حسن", "أحمد^محمد", "Müller^Jürgen")


@dataclass(frozen=True)
class Said:
    """What findscu told."""

    found: list[Dataset]
    log: str

    @property
    def status(self) -> str:
        """DIMSE status of the final response, hex."""
        last: str = re.findall(r"DIMSE Status\s+: 0x([0-9a-fA-F]{4})", self.log)[-1]
        return last.lower()


@dataclass(frozen=True)
class Workstation:
    """findscu and a folder for what it gets."""

    archive: Archive
    folder: Path

    def ask(self, model: str, level: str, *keys: str, options: tuple[str, ...] = ()) -> Said:
        """One query."""
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        settings = self.archive.settings
        words = [w for key in (f"QueryRetrieveLevel={level}", *keys) for w in ("-k", key)]
        where = ["-aec", settings.ae_title, settings.dicom_host, str(settings.dicom_port)]
        ran = subprocess.run(
            [dcmtk("findscu"), "-d", model, "-X", "-od", str(folder), *options, *words, *where],
            capture_output=True,
            timeout=60,
            check=False,
        )
        files = sorted(folder.glob("rsp*"))
        return Said([pydicom.dcmread(f) for f in files], ran.stderr.decode(errors="replace"))


@pytest.fixture(scope="module")
def sent(whole: object, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive(whole.settings("operator"))  # type: ignore[attr-defined]
    for n, name in enumerate(NAMES, 1):
        study = f"{STUDY}.{n}"
        files = [
            part10(
                f"{study}.1.{i}",
                study=study,
                series=f"{study}.1",
                PatientName=name,
                PatientID=f"FIND-{n}",
                AccessionNumber=f"FIND-A{n}",
                StudyDate=f"1999010{n}",
                InstanceNumber=i,
            )
            for i in (1, 2, 3)
        ]
        assert archive.stow(files).status_code == 200
    wait_until(lambda: all(archive.instance_count(f"{STUDY}.{n}") == 3 for n in (1, 2, 3)), 60, "studies found")
    return archive


@pytest.mark.client("dcmtk findscu", feature="C-FIND")
def test_findscu_asks_all_levels(sent: Archive, tmp_path: Path) -> None:
    scu = Workstation(sent, tmp_path)
    utf8 = "SpecificCharacterSet=ISO_IR 192"
    dates = "StudyDate=19990101-19990103"

    # STUDY: keys, ranges, wild cards, lists; what is found and what is not
    for keys, numbers in (
        (("AccessionNumber=FIND-A2",), {2}),
        ((dates,), {1, 2, 3}),
        ((dates, "PatientName=*ASSA*"), {1}),
        ((dates, "ModalitiesInStudy=MR"), set()),
        ((f"StudyInstanceUID={STUDY}.1\\{STUDY}.3",), {1, 3}),
        ((utf8, "PatientName=احمد*", dates), {2}),
    ):
        said = scu.ask("-S", "STUDY", *keys, "NumberOfStudyRelatedInstances")
        assert {d.StudyInstanceUID for d in said.found if d.get("StudyInstanceUID")} == {
            f"{STUDY}.{n}" for n in numbers
        }
        assert said.status == "0000"
        assert all(d.NumberOfStudyRelatedInstances == 3 for d in said.found)
        assert all(d.RetrieveAETitle == sent.settings.ae_title for d in said.found)

    # PATIENT, SERIES, IMAGE
    (patient,) = scu.ask("-P", "PATIENT", "PatientID=FIND-1", "NumberOfPatientRelatedInstances").found
    assert patient.NumberOfPatientRelatedInstances == 3
    series = scu.ask("-P", "SERIES", "PatientID=FIND-1", f"StudyInstanceUID={STUDY}.1", "SeriesDescription").found
    assert [(d.SeriesInstanceUID, d.SeriesDescription) for d in series] == [(f"{STUDY}.1.1", "axial")]
    above = f"StudyInstanceUID={STUDY}.1", f"SeriesInstanceUID={STUDY}.1.1"
    images = scu.ask("-S", "IMAGE", *above, "SOPInstanceUID", "InstanceNumber").found
    assert {(d.SOPInstanceUID, d.InstanceNumber) for d in images} == {(f"{STUDY}.1.1.{i}", i) for i in (1, 2, 3)}

    # Character sets: the query's, or UTF-8 where that cannot spell the answer
    for asked, number, answered in (
        ("ISO_IR 127", 2, "ISO_IR 127"),
        ("ISO_IR 127", 3, "ISO_IR 192"),
        ("ISO_IR 100", 3, "ISO_IR 100"),
        ("ISO_IR 192", 2, "ISO_IR 192"),
    ):
        keys = f"SpecificCharacterSet={asked}", f"PatientID=FIND-{number}", "PatientName"
        (found,) = scu.ask("-S", "STUDY", *keys).found
        assert (found.SpecificCharacterSet, str(found.PatientName)) == (answered, NAMES[number - 1])

    # Statuses: a level that the model has not, a missing unique key, a cancelled query
    assert scu.ask("-S", "PATIENT", "PatientID=FIND-1").status == "a900"
    assert scu.ask("-S", "SERIES", "PatientID=FIND-1").status == "a900"
    assert scu.ask("-S", "STUDY", "StudyDate=1999").status == "a900"
    many = scu.ask("-S", "STUDY", "StudyDate", options=("--cancel", "1"))
    assert many.status in ("fe00", "0000")  # the last answer may have left before the cancel came

    # The trail names the query
    wait_until(
        lambda: any(
            a["action"] == "query" and a["actor"].startswith("ae:FINDSCU@")
            for a in sent.json(f"/studies/{STUDY}.1/accesses")["accesses"]
        ),
        30,
        "the query is in the trail",
    )
