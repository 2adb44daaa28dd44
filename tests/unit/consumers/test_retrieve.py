"""WADO-RS over a filled archive: bytes, transfer syntaxes, frames, metadata, tiers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.pixels.utils import pixel_array

from consumers.api import packs
from consumers.api.frame_table import frame_spans
from consumers.api.streams import Budget
from consumers.api.wado import EXPLICIT_LE, IMPLICIT_LE
from infra.memory import MemoryTables
from infra.ports import Row, Select
from schemas.events import AccessGranted
from schemas.pack import IDENTITY, manifest_key
from tests.unit.consumers.archive import MemoryArchive, part10, sample
from tests.unit.consumers.multipart import parts_of

DICOM = 'multipart/related; type="application/dicom"'
AS_STORED = DICOM + "; transfer-syntax=*"
BASE = "/dicom-web/studies/1.2.3"
ONE = f"{BASE}/series/1.2.3.1/instances/1.2.3.1.1"

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom warns of what its own files hold


def stored(*files: bytes) -> MemoryArchive:
    archive = MemoryArchive()
    archive.store(files)
    return archive


def archived(name: str) -> tuple[MemoryArchive, bytes, str]:
    """An archive with one of pydicom's files, its bytes, and its address."""
    data = sample(name)
    ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    return stored(data), data, path


def get(archive: MemoryArchive, path: str, accept: str = "") -> httpx.Response:
    return archive.get(path, **({"Accept": accept} if accept else {}))


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


# ------------------------------------------------------------------------------------------------ instances


def test_explicit_instances_leave_byte_for_byte() -> None:
    files = [part10(f"1.2.3.1.{n}", InstanceNumber=n) for n in range(1, 6)]
    archive = stored(*files)
    for path, expected in ((BASE, files), (f"{BASE}/series/1.2.3.1", files), (ONE, files[:1])):
        answer = get(archive, path, DICOM)
        assert [p.body for p in parts_of(answer)] == expected
        assert {p.transfer_syntax for p in parts_of(answer)} == {EXPLICIT_LE}
        assert int(answer.headers["Content-Length"]) == len(answer.content)
    bare = get(archive, ONE, "application/dicom")
    assert (bare.headers["Content-Type"], bare.content) == ("application/dicom", files[0])
    assert parts_of(get(archive, ONE, "*/*"))[0].body == files[0]


def test_packs_of_a_study_follow_each_other() -> None:
    archive = MemoryArchive()
    files = [part10(f"1.2.3.{n}.1", series=f"1.2.3.{n}") for n in range(1, 8)]
    for data in reversed(files):
        archive.store([data])
    assert [p.body for p in parts_of(get(archive, BASE, DICOM))] == files[::-1]


def test_the_first_copy_is_served() -> None:
    archive = MemoryArchive()
    first, second = part10("1.2.3.1.1"), part10("1.2.3.1.1", InstanceNumber=9)
    archive.store([first])
    archive.store([second])
    assert [p.body for p in parts_of(get(archive, BASE, DICOM))] == [first]
    assert get(archive, f"{ONE}/original", "application/dicom").content == first


def test_implicit_leaves_as_explicit_unless_the_original_is_asked_for() -> None:
    data = part10("1.2.3.1.1", syntax=IMPLICIT_LE)
    archive = stored(data)
    for accept in (DICOM, AS_STORED, f"{DICOM}; transfer-syntax={EXPLICIT_LE}"):
        (part,) = parts_of(get(archive, ONE, accept))
        assert part.transfer_syntax == EXPLICIT_LE
        assert read(part.body).file_meta.TransferSyntaxUID == EXPLICIT_LE
        assert read(part.body).to_json_dict() == read(data).to_json_dict()
    assert get(archive, ONE, f"{DICOM}; transfer-syntax={IMPLICIT_LE}").status_code == 406
    assert get(archive, f"{ONE}/original").content == data
    (part,) = parts_of(get(archive, f"{BASE}/original", DICOM))
    assert (part.transfer_syntax, part.body) == (IMPLICIT_LE, data)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "MR_small_RLE.dcm",
        "SC_rgb_rle_2frame.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "JPEG2000.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPEG-LL.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
    ],
)
def test_what_is_compressed_or_odd_leaves_decoded(name: str) -> None:
    archive, data, path = archived(name)
    (part,) = parts_of(get(archive, path, DICOM))
    before, after = read(data), read(part.body)
    assert after.file_meta.TransferSyntaxUID == EXPLICIT_LE
    raw = pixel_array(before, raw=True)
    assert np.array_equal(pixel_array(after, raw=True), raw)
    assert after.SOPInstanceUID == before.SOPInstanceUID
    stored_syntax = str(before.file_meta.TransferSyntaxUID)
    if stored_syntax != "1.2.840.10008.1.2.2":
        (as_stored,) = parts_of(get(archive, path, AS_STORED))
        assert (as_stored.transfer_syntax, as_stored.body) == (stored_syntax, data)
        assert parts_of(get(archive, path, f"{DICOM}; transfer-syntax={stored_syntax}"))[0].body == data


def test_what_cannot_be_decoded_is_not_acceptable_but_as_stored() -> None:
    data = part10("1.2.3.1.1")
    # A syntax that nothing decodes, of the same length.
    video = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    archive = stored(video)
    answer = get(archive, ONE, DICOM)
    assert (answer.status_code, answer.headers["Content-Type"]) == (406, "application/problem+json")
    assert parts_of(get(archive, ONE, AS_STORED))[0].body == video
    assert archive.journal.events(AccessGranted)[0].action == "retrieve"


def test_a_mixed_study_leaves_each_in_its_way() -> None:
    files = [
        part10("1.2.3.1.1"),
        part10("1.2.3.1.2", syntax=IMPLICIT_LE),
        part10("1.2.3.1.3"),
        part10("1.2.3.1.4", syntax=IMPLICIT_LE),
    ]
    answer = get(stored(*files), BASE, DICOM)
    bodies = [p.body for p in parts_of(answer)]
    assert (bodies[0], bodies[2]) == (files[0], files[2])
    assert [read(b).SOPInstanceUID for b in bodies] == [f"1.2.3.1.{n}" for n in range(1, 5)]
    assert "Content-Length" not in answer.headers


def test_a_file_stored_without_file_meta_leaves_with_one() -> None:
    whole = part10("1.2.3.1.1")
    bare = whole[144 + int.from_bytes(whole[140:144], "little") :]
    archive = stored(bare)
    for accept in (DICOM, AS_STORED):
        (part,) = parts_of(get(archive, ONE, accept))
        assert read(part.body).file_meta.MediaStorageSOPInstanceUID == "1.2.3.1.1"
        assert part.body.endswith(bare)
    assert get(archive, f"{ONE}/original").content == bare


def test_a_truncated_implicit_dataset_is_not_acceptable() -> None:
    data = part10("1.2.3.1.1", syntax=IMPLICIT_LE)
    archive = MemoryArchive(IDENTITY)
    archive.store([data])
    pack = next(iter(archive.objects.list("sijil-packs", "packs/")))
    key = pack if pack.endswith(".tar") else pack.replace(".manifest.jsonl.gz", ".tar")
    damaged = archive.objects.get("sijil-packs", key).replace(b"\xe0\x7f\x10\x00 \0\0\0", b"\xe0\x7f\x10\x00 \0\0\7")
    archive.objects.damage("sijil-packs", key, damaged)
    assert get(archive, ONE, DICOM).status_code == 406


# ------------------------------------------------------------------------------------------------ frames


def test_native_frames() -> None:
    data = part10("1.2.3.1.1", frames=5)
    archive = stored(data)
    pixels = read(data).PixelData
    answer = get(archive, f"{ONE}/frames/3,1", "multipart/related; type=application/octet-stream; transfer-syntax=*")
    assert [p.body for p in parts_of(answer)] == [pixels[64:96], pixels[:32]]
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert get(archive, f"{ONE}/frames/2", "application/octet-stream").content == pixels[32:64]
    assert get(archive, f"{ONE}/frames/6").status_code == 404
    assert get(archive, f"{ONE}/frames/0").status_code == 400
    assert get(archive, f"{ONE}/frames/1", 'multipart/related; type="image/jpeg"').status_code == 406


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("emri_small_jpeg_2k_lossless.dcm", "image/jp2"), ("SC_rgb_rle_2frame.dcm", "image/dicom-rle")],
)
def test_compressed_frames(name: str, media_type: str) -> None:
    archive, data, path = archived(name)
    ds = read(data)
    fragments = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
    viewer = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    for accept, expected in (("", media_type), (f'multipart/related; type="{media_type}"', media_type)):
        (part,) = parts_of(get(archive, f"{path}/frames/2", accept))
        assert part.headers["content-type"].startswith(expected)
        assert part.body == fragments[1]
    (part,) = parts_of(get(archive, f"{path}/frames/2", viewer))
    assert (part.body, part.transfer_syntax) == (fragments[1], str(ds.file_meta.TransferSyntaxUID))
    decoded = get(archive, f"{path}/frames/2,1", 'multipart/related; type="application/octet-stream"')
    whole = pixel_array(ds, raw=True)
    got = [np.frombuffer(p.body, whole.dtype) for p in parts_of(decoded)]
    if ds.SamplesPerPixel == 1:
        assert [np.array_equal(g, whole[n].ravel()) for g, n in zip(got, (1, 0), strict=True)] == [True, True]
    else:
        assert [len(g) for g in got] == [whole[0].size] * 2


def test_frames_of_single_bits_need_not_begin_at_a_byte() -> None:
    pixels = bytes((n * 37 + 11) % 256 for n in range(8))
    data = part10("1.2.3.1.1", rows=3, columns=3, frames=7, BitsAllocated=1, BitsStored=1, HighBit=0, pixels=pixels)
    archive = stored(data)
    whole = np.unpackbits(np.frombuffer(pixels, np.uint8), bitorder="little")
    answer = get(archive, f"{ONE}/frames/{','.join(map(str, range(1, 8)))}")
    for n, part in enumerate(parts_of(answer)):
        bits = np.unpackbits(np.frombuffer(part.body, np.uint8), bitorder="little")
        assert np.array_equal(bits[:9], whole[9 * n : 9 * n + 9])
        assert not bits[9:].any()


def test_frames_of_a_big_endian_instance_are_turned() -> None:
    archive, data, path = archived("MR_small_bigendian.dcm")
    (part,) = parts_of(get(archive, f"{path}/frames/1"))
    assert np.array_equal(np.frombuffer(part.body, "<i2"), read(data).pixel_array.ravel())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5))
def test_frame_tables(frames: list[tuple[int, int]]) -> None:
    text = "[" + ",".join(f"[{o},{n}]" for o, n in frames) + "]"
    found = frame_spans(f'{{"encapsulated":{text}}}'.encode())
    assert [found.of(n) for n in range(found.count)] == [(f,) for f in frames]
    assert frame_spans(b"null").count == 0
    assert frame_spans(b'{"native":[100,4096,3]}').of(2) == ((100 + 2 * 512, 512),)


# ------------------------------------------------------------------------------------------------ metadata, bulk data


def test_metadata_come_from_the_manifests() -> None:
    files = [part10(f"1.2.3.1.{n}") for n in (1, 2)] + [part10("1.2.3.2.1", series="1.2.3.2")]
    archive = stored(*files)
    for path, count in ((BASE, 3), (f"{BASE}/series/1.2.3.1", 2), (ONE, 1)):
        answer = get(archive, f"{path}/metadata", "application/dicom+json")
        found = answer.json()
        assert len(found) == count
        assert found[0]["00280010"] == {"vr": "US", "Value": [4]}
        assert "InlineBinary" not in found[0]["7FE00010"]
    assert get(archive, f"{ONE}/metadata", "image/png").status_code == 406
    assert get(archive, f"{BASE}/series/1.2.9/metadata").status_code == 404


def test_references_to_bulk_data_lead_to_it() -> None:
    data = part10("1.2.3.1.1")
    archive = stored(data)
    reference = get(archive, f"{ONE}/metadata").json()[0]["7FE00010"]["BulkDataURI"]
    assert reference == f"http://sijil.test{ONE}/bulkdata/7FE00010"
    assert get(archive, reference, "application/octet-stream").content == read(data).PixelData
    (part,) = parts_of(get(archive, reference, 'multipart/related; type="application/octet-stream"'))
    assert part.body == read(data).PixelData


def test_a_path_of_bulk_data_is_checked() -> None:
    archive = stored(part10("1.2.3.1.1"))
    for path in ("7FE00010/1", "..%2F..%2Fetc", "a//b", "PixelData", "7FE0001G", "00540016/x/00181072"):
        assert get(archive, f"{ONE}/bulkdata/{path}").status_code == 400
    for path in ("00091001", "00091001/1/00091001", "00080060/1/00091001"):
        assert get(archive, f"{ONE}/bulkdata/{path}").status_code == 404


# ------------------------------------------------------------------------------------------------ tiers


def test_the_archive_copy_answers_when_the_hot_one_is_gone() -> None:
    data = part10("1.2.3.1.1")
    archive = MemoryArchive()
    pack = archive.store([data])
    archive.archived(pack, "1.2.3")
    for key in (archive.pack_key(pack), manifest_key(pack)):
        archive.objects.delete("sijil-packs", key)
    assert parts_of(get(archive, ONE, DICOM))[0].body == data
    assert len(get(archive, f"{BASE}/metadata").json()) == 1


def test_a_pack_archived_after_it_was_first_read_is_found() -> None:
    data = part10("1.2.3.1.1")
    archive = MemoryArchive()
    pack = archive.store([data])

    async def run() -> None:
        async with archive.client() as client:
            assert (await client.get(ONE, headers={"Accept": DICOM})).status_code == 200
            await asyncio.to_thread(archive.archived, pack, "1.2.3")
            archive.objects.delete("sijil-packs", archive.pack_key(pack))
            answer = await client.get(ONE, headers={"Accept": DICOM})
            assert parts_of(answer)[0].body == data

    asyncio.run(run())


def without_rows_of_packs(patch: pytest.MonkeyPatch, looks: float) -> list[str]:
    """The first `looks` reads of the table of packs find nothing, as while the worker writes."""
    select, seen = MemoryTables.select, list[str]()

    async def late(tables: MemoryTables, query: Select) -> list[Row]:
        if query.table == "packs" and len(seen) < looks:
            seen.append(query.table)
            return []
        return await select(tables, query)

    patch.setattr(MemoryTables, "select", late)
    return seen


def test_an_instance_whose_pack_has_no_row_yet_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "LOOK_S", 0.001)
    data = part10("1.2.3.1.1")
    archive = stored(data)
    seen = without_rows_of_packs(monkeypatch, 3)
    assert parts_of(get(archive, ONE, DICOM))[0].body == data
    assert len(seen) == 3


def test_one_whose_pack_gets_no_row_is_to_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "ROW_S", 0.01)
    archive = stored(part10("1.2.3.1.1"))
    without_rows_of_packs(monkeypatch, float("inf"))
    assert get(archive, ONE, DICOM).status_code == 503


def test_bytes_in_no_tier_are_a_fault_of_ours() -> None:
    archive = MemoryArchive()
    pack = archive.store([part10("1.2.3.1.1")])
    archive.objects.delete("sijil-packs", archive.pack_key(pack))
    answer = get(archive, ONE, DICOM)
    assert answer.status_code == 500
    assert "1.2.3" not in answer.text


def test_a_manifest_that_was_changed_is_not_believed() -> None:
    archive = MemoryArchive()
    pack = archive.store([part10("1.2.3.1.1")])
    archive.objects.damage("sijil-packs", manifest_key(pack), b"other")
    assert get(archive, f"{ONE}/metadata").status_code == 500


def test_without_s3_it_is_told_to_come_back() -> None:
    archive = stored(part10("1.2.3.1.1"))
    archive.objects.away = True
    assert get(archive, ONE, DICOM).status_code == 503
    assert get(archive, f"{ONE}/metadata").status_code == 503


# ------------------------------------------------------------------------------------------------ budget


def test_a_budget_is_given_in_order() -> None:
    async def run() -> None:
        budget = Budget(10)
        await budget.take(6)
        order: list[int] = []

        async def taker(n: int, size: int) -> None:
            await budget.take(size)
            order.append(n)

        tasks = [asyncio.create_task(taker(n, size)) for n, size in enumerate((20, 1, 1))]
        await asyncio.sleep(0)
        assert order == []
        budget.give(6)
        await asyncio.sleep(0)
        assert order == [0]
        budget.give(20)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2]

    asyncio.run(run())


def test_who_gives_up_gives_back() -> None:
    async def run() -> None:
        budget = Budget(10)
        await budget.take(10)
        waiting = asyncio.create_task(budget.take(5))
        await asyncio.sleep(0)
        waiting.cancel()
        budget.give(10)
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(budget.take(10), 1)

    asyncio.run(run())


def test_of_a_large_compressed_instance_only_the_frames_are_read() -> None:
    data = sample("SC_rgb_rle_16bit_2frame.dcm")
    expected = pixel_array(io.BytesIO(data), raw=True)
    archive, _, path = archived("SC_rgb_rle_16bit_2frame.dcm")
    read: list[int] = []
    stream = archive.objects.stream

    def counted(bucket: str, key: str, offset: int, length: int, *, version_id: str = "") -> AsyncIterator[bytes]:
        read.append(length)
        return stream(bucket, key, offset, length, version_id=version_id)

    archive.objects.stream = counted  # type: ignore[method-assign]
    (part,) = parts_of(get(archive, f"{path}/frames/2", 'multipart/related; type="application/octet-stream"'))
    assert len(part.body) == expected[1].nbytes
    assert sum(read) < len(data) * 3 / 4
