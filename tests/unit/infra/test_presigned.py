"""URLs are signed once and renewed in time."""

from __future__ import annotations

import pytest

from infra import clock, presigned
from infra.presigned import URL_VALID_S, Address, Presigned


def test_signed_once_and_renewed_at_half_time(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[Address] = []

    def sign(address: Address, seconds: int) -> str:
        signed.append(address)
        assert seconds == URL_VALID_S
        return f"http://s3/{len(signed)}"

    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    urls = Presigned(sign)
    address = ("packs", "a.tar", "")
    assert urls.url(address) == urls.url(address) == "http://s3/1"
    assert urls.url(("packs", "a.tar", "v2")) == "http://s3/2"
    now += URL_VALID_S / 2 + 1
    assert urls.url(address) == "http://s3/3"


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presigned, "URLS_MAX", 3)
    signed: list[Address] = []
    urls = Presigned(lambda address, _: signed.append(address) or "")  # type: ignore[func-returns-value]
    for n in range(5):
        urls.url(("b", f"{n}", ""))
    urls.url(("b", "4", ""))
    assert len(signed) == 5
    urls.url(("b", "0", ""))
    assert len(signed) == 6
