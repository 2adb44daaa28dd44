"""Headers that every tar program reads."""

from __future__ import annotations

import io
import tarfile

import pytest

from producers import tar
from schemas.errors import Invalid


@pytest.mark.parametrize("make", [tar.header, tar.pax_header])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4096])
def test_members_are_read_back(make: object, size: int) -> None:
    assert callable(make)
    data = bytes(range(256)) * 16
    entry = make("1.2.3.dcm", size, 1_700_000_000) + data[:size] + tar.padding(size)
    assert len(entry) % tar.BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(entry + entry.replace(b"1.2.3", b"1.2.3") + tar.END)) as archive:
        members = archive.getmembers()
        assert [(m.name, m.size, m.mtime, m.mode) for m in members] == [("1.2.3.dcm", size, 1_700_000_000, 0o644)] * 2
        found = archive.extractfile(members[0])
        assert found is not None
        assert found.read() == data[:size]


@pytest.mark.parametrize("size", [tar.USTAR_SIZE_MAX + 1, 1 << 40])
def test_sizes_beyond_ustar(size: int) -> None:
    with pytest.raises(Invalid, match="cannot hold"):
        tar.header("1.2.dcm", size, 0)
    head = tar.pax_header("1.2.dcm", size, 0)
    assert len(head) == tar.PAX_HEADER_LENGTH
    with tarfile.open(fileobj=io.BytesIO(head + bytes(tar.BLOCK))) as archive:
        member = archive.next()
    assert member is not None
    assert member.size == size


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(Invalid):
        tar.header(name, 1, 0)
