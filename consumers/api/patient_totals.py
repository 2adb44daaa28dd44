"""How much a patient has (0020,1200), (0020,1202), (0020,1204): summed over the patient's file when a search asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from consumers.api import queries
from consumers.api.walk import NEXT_PAGE, Deadline, Partition, Reader, merged
from infra.ports import Tables
from schemas.dicom_json import Dataset, number
from schemas.levels import PATIENT_INSTANCES, PATIENT_SERIES, PATIENT_STUDIES


class _Count(msgspec.Struct):
    Value: list[int] = []


class _Answer(msgspec.Struct, rename={"series": "00201206", "instances": "00201208"}):
    series: _Count
    instances: _Count


_answer = msgspec.json.Decoder(_Answer)


async def totals(tables: Tables, patient_keys: Iterable[str], deadline: Deadline) -> Mapping[str, Dataset]:
    """The three elements by patient key; no keys of patients whose file could not be read before the deadline."""
    found: dict[str, Dataset] = {}
    reader = Reader(tables)
    for key in dict.fromkeys(patient_keys):
        studies = series = instances = 0
        async for chunk in merged(reader, [Partition(queries.by_patient(key), NEXT_PAGE)], deadline):
            for row in chunk:
                answer = _answer.decode(row["answer"])
                studies += 1
                series += sum(answer.series.Value)
                instances += sum(answer.instances.Value)
        if deadline.passed:
            break
        found[key] = {
            PATIENT_STUDIES: number(studies),
            PATIENT_SERIES: number(series),
            PATIENT_INSTANCES: number(instances),
        }
    return found
