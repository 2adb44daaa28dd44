"""What reading an instance costs, beside pydicom: best of several rounds, microseconds of one core.

python -m tests.bench.bench_header
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from rich.console import Console
from rich.table import Table

from producers.dicom.essentials import essentials
from producers.dicom.header import header_json
from producers.dicom.part10 import parse_file_meta
from tests.unit.producers.dicom.samples import DATA_STORE, TEST_FILES

FILES = (
    TEST_FILES / "CT_small.dcm",
    TEST_FILES / "MR_small_implicit.dcm",
    TEST_FILES / "test-SR.dcm",
    DATA_STORE / "emri_small_jpeg_ls_lossless.dcm",
    DATA_STORE / "eCT_Supplemental.dcm",
    DATA_STORE / "RG3_UNCR.dcm",
)


def ct_of_100_elements() -> bytes:
    """A CT slice of 512 x 512 with a hundred elements at its top level, as scanners send them: the target's."""
    dataset = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    dataset.remove_private_tags()
    public = pydicom.dcmread(DATA_STORE / "eCT_Supplemental.dcm")
    for element in public:
        if len(dataset) < 99 and element.VR != "SQ" and element.tag not in dataset and element.tag.group < 0x7FE0:
            dataset[element.tag] = element
    dataset.Rows = dataset.Columns = 512
    dataset.PixelData = bytes(512 * 512 * 2)
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def elements_of(dataset: Dataset) -> int:
    return sum(1 for _ in dataset.iterall())


def by_pydicom(data: bytes) -> object:
    return pydicom.dcmread(BytesIO(data)).to_json_dict(bulk_data_threshold=1366, bulk_data_element_handler=lambda _: "")


def best_us(call: Callable[[], object], seconds: float = 0.5) -> float:
    """Microseconds of the fastest of the calls that fit into `seconds`, at least three."""
    best, calls, end = float("inf"), 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
        calls += 1
    return best * 1e6


def rows() -> Iterator[tuple[str, ...]]:
    files = {"CT, 100 elements": ct_of_100_elements()} | {path.name: path.read_bytes() for path in FILES}
    for name, data in files.items():
        meta = parse_file_meta(data)
        syntax, dataset = meta.transfer_syntax, memoryview(data)[meta.dataset_offset :]
        header = header_json(dataset, syntax)
        ours = [
            best_us(partial(parse_file_meta, data)),
            best_us(partial(essentials, dataset, syntax, whole=False)),
            best_us(partial(essentials, dataset, syntax)),
            best_us(partial(header_json, dataset, syntax)),
        ]
        theirs = best_us(partial(by_pydicom, data))
        count = elements_of(pydicom.dcmread(BytesIO(data)))
        figures = (*ours, theirs)
        yield name, str(count), str(len(header.json)), *(f"{us:,.0f}" for us in figures), f"{theirs / ours[-1]:.1f}"


def main() -> None:
    warnings.simplefilter("ignore")
    table = Table(
        "file", "elements", "JSON bytes", "File Meta", "to the UIDs", "essentials", "header", "pydicom", "times"
    )
    for row in rows():
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
