"""Synthetic CT studies for the benchmark: real Part 10 files of 0.5 MB, the same for the same seed.

Not phantoms: the pixels are smooth noise that no part of the system compresses or looks at.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

ROOT_UID = "2.25.3141592653"
ROWS = COLUMNS = 512


@dataclass(frozen=True)
class Instance:
    """One file on disk."""

    study: str
    series: str
    sop: str
    path: Path


def make_ct(
    folder: Path, *, studies: int, slices: int, seed: int, rows: int = ROWS, implicit: bool = False
) -> list[list[Instance]]:
    """`studies` folders of `slices` files each, Explicit or Implicit VR Little Endian. Returns them study by study."""
    noise = np.random.default_rng(seed)
    planes = [noise.integers(0, 4096, (rows, COLUMNS), dtype=np.uint16).tobytes() for _ in range(8)]
    made = []
    for n in range(studies):
        study = f"{ROOT_UID}.{seed}.{n + 1}"
        home = folder / f"study-{n:04d}"
        home.mkdir(parents=True, exist_ok=True)
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        made.append([_slice(home, study, i, planes[i % len(planes)], rows, n, syntax) for i in range(slices)])
    return made


def _slice(
    home: Path, study: str, number: int, pixels: bytes, rows: int, patient: int, transfer_syntax: UID
) -> Instance:
    series, sop = f"{study}.1", f"{study}.1.{number + 1}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(sop)
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = UID(f"{ROOT_UID}.0")
    ds = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, UID(sop)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = (
        f"2026{1 + patient % 12:02d}{1 + patient % 28:02d}"
    )
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{8 + patient % 10:02d}1500"
    ds.AccessionNumber, ds.Modality = f"B{patient:08d}", "CT"
    ds.Manufacturer, ds.InstitutionName = "Bench", "Bench Hospital"
    ds.ReferringPhysicianName, ds.StudyDescription = "Referrer^Doctor", "CT chest"
    ds.PatientName, ds.PatientID = f"Bench^Patient{patient}=أحمد^محمد{patient}", f"BENCH-{patient:06d}"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "M"
    ds.SliceThickness, ds.KVP, ds.BodyPartExamined = "2.5", "120", "CHEST"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.StudyID = UID(study), UID(series), str(patient)
    ds.SeriesNumber, ds.InstanceNumber = 1, number + 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-180, -180, number * 2.5], [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID, ds.SliceLocation = UID(f"{study}.9"), number * 2.5
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelSpacing = rows, COLUMNS, [0.7, 0.7]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept, ds.RescaleSlope = "40", "400", "-1024", "1"
    ds.PixelData = pixels
    ds["PixelData"].VR = "OW"
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    path = home / f"{number + 1:05d}.dcm"
    path.write_bytes(out.getvalue())
    return Instance(study, series, sop, path)
