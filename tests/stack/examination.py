"""An imaging device as a radiology department has it: asks for its worklist, says by MPPS what it does, sends images.

By DCMTK's findscu and storescu; MPPS by pynetdicom, since DCMTK has no program for it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from tests.archive import Archive, dcmtk
from tests.unit.consumers.archive import part10

MPPS = "1.2.840.10008.3.1.2.3.3"
STEP = "(0040,0100)[0]."
KEYS = (
    "SpecificCharacterSet=ISO_IR 192", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
    "PatientSex", "StudyInstanceUID", "RequestedProcedureID", "RequestedProcedureDescription",
    "ReferringPhysicianName", "ReasonForTheRequestedProcedure", f"{STEP}Modality", f"{STEP}ScheduledStationAETitle",
    f"{STEP}ScheduledProcedureStepID", f"{STEP}ScheduledProcedureStepStartDate",
    f"{STEP}ScheduledProcedureStepStatus",
)  # fmt: skip


@dataclass
class Device:
    """One of them; its files are in `folder`."""

    archive: Archive
    folder: Path
    ae_title: str = "CT1"

    def worklist(self, accession: str) -> list[Dataset]:
        """What findscu is told of an order."""
        answers = self.folder / "worklist"
        answers.mkdir(parents=True, exist_ok=True)
        for old in answers.glob("*.dcm"):
            old.unlink()
        settings = self.archive.settings
        keys = [part for key in (*KEYS, f"AccessionNumber={accession}") for part in ("-k", key)]
        where = ["-aet", self.ae_title, "-aec", settings.ae_title, settings.dicom_host, str(settings.dicom_port)]
        command = [dcmtk("findscu"), "-W", "-X", "-od", str(answers), *keys, *where]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "TCP_NODELAY": "1"}
        )
        assert done.returncode == 0, done.stderr
        return [pydicom.dcmread(path) for path in sorted(answers.glob("*.dcm"))]

    def images(self, item: Dataset, count: int, **values: Any) -> list[Path]:
        """Of the patient and study that the item names, as a device copies them."""
        study = str(item.StudyInstanceUID)
        copied: dict[str, Any] = {
            keyword: item[keyword].value
            for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName")
        }
        made = []
        for n in range(1, count + 1):
            path = self.folder / f"{n}.dcm"
            described = str(item.RequestedProcedureDescription)
            file = part10(
                f"{study}.1.{n}",
                study=study,
                series=f"{study}.1",
                rows=64,
                columns=64,
                AccessionNumber=str(item.AccessionNumber),
                StudyDescription=described,
                InstanceNumber=n,
                StudyDate=str(item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate),
                **copied,
                **values,
            )
            path.write_bytes(file)
            made.append(path)
        return made

    def begin(self, item: Dataset, step_uid: str) -> None:
        """N-CREATE."""
        scheduled = Dataset()
        scheduled.StudyInstanceUID, scheduled.AccessionNumber = item.StudyInstanceUID, item.AccessionNumber
        scheduled.RequestedProcedureID = item.RequestedProcedureID
        said = Dataset()
        said.SpecificCharacterSet = "ISO_IR 192"
        said.PatientName, said.PatientID = item.PatientName, item.PatientID
        said.ScheduledStepAttributesSequence = [scheduled]
        said.PerformedProcedureStepID, said.PerformedStationAETitle, said.Modality = "PPS1", self.ae_title, "CT"
        said.PerformedProcedureStepStartDate, said.PerformedProcedureStepStartTime = "20250301", "080000"
        said.PerformedProcedureStepStatus, said.PerformedSeriesSequence = "IN PROGRESS", []
        self._say("send_n_create", said, step_uid)

    def end(self, study_uid: str, sop_uids: Sequence[str], step_uid: str) -> None:
        """N-SET: completed, with what was made."""
        series, images = Dataset(), []
        for uid in sop_uids:
            image = Dataset()
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
            images.append(image)
        series.SeriesInstanceUID, series.ReferencedImageSequence = f"{study_uid}.1", images
        said = Dataset()
        said.PerformedProcedureStepStatus, said.PerformedSeriesSequence = "COMPLETED", [series]
        said.PerformedProcedureStepEndDate, said.PerformedProcedureStepEndTime = "20250301", "081500"
        self._say("send_n_set", said, step_uid)

    def _say(self, operation: str, said: Dataset, step_uid: str) -> None:
        settings = self.archive.settings
        ae = AE(self.ae_title)
        ae.add_requested_context(MPPS, ExplicitVRLittleEndian)
        line = ae.associate(settings.dicom_host, settings.dicom_port, ae_title=settings.ae_title)
        assert line.is_established
        status, _ = getattr(line, operation)(said, MPPS, step_uid)
        line.release()
        assert status.Status == 0, f"{operation}: {status}"
