"""The DICOM files that pydicom and pydicom-data bundle, by path: their finders may want to download."""

from importlib.util import find_spec
from pathlib import Path


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


PYDICOM = _package("pydicom") / "data"
TEST_FILES = PYDICOM / "test_files"
DATA_STORE = _package("data_store") / "data"

FILES = sorted(
    path
    for root in (TEST_FILES, PYDICOM / "charset_files", PYDICOM / "palettes", DATA_STORE)
    for path in root.rglob("*")
    if path.is_file()
)


def name_of(path: Path) -> str:
    return str(path.relative_to(DATA_STORE if DATA_STORE in path.parents else PYDICOM))


# What no reading makes an instance, and why: everything else of FILES is one.
REFUSED = {
    "palettes/README.md": "not-dicom",
    "charset_files/FileInfo.txt": "not-dicom",
    "test_files/README.txt": "not-dicom",
    "test_files/crayons.icc": "not-dicom",
    "test_files/rtplan.dump": "not-dicom",
    "test_files/rtstruct.dump": "not-dicom",
    "test_files/test1.json": "not-dicom",
    "test_files/test_PN.json": "not-dicom",
    "test_files/zipMR.gz": "not-dicom",
    "test_files/dicomdirtests/README.txt": "not-dicom",
    "test_files/dicomdirtests/TINY_ALPHA/README": "not-dicom",
    "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR": "dicomdir",
    "test_files/no_meta.dcm": "not-dicom",  # a stray byte in front of the first element
    "test_files/meta_missing_tsyntax.dcm": "no-transfer-syntax",  # and its first element is no usual one
    "test_files/MR_truncated.dcm": "truncated",
    "test_files/rtplan_truncated.dcm": "truncated",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "truncated",
    "test_files/dicomdirtests/DICOMDIR": "dicomdir",
    "test_files/dicomdirtests/DICOMDIR-bigEnd": "dicomdir",
    "test_files/dicomdirtests/DICOMDIR-empty.dcm": "dicomdir",
    "test_files/dicomdirtests/DICOMDIR-implicit": "dicomdir",
    "test_files/dicomdirtests/DICOMDIR-nooffset": "dicomdir",
    "test_files/dicomdirtests/DICOMDIR-nopatient": "dicomdir",
    "test_files/dicomdirtests/DICOMDIR-reordered": "dicomdir",
}
INSTANCES = [path for path in FILES if name_of(path) not in REFUSED]
