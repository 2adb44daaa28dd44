"""SMS and e-mail through those who carry them: taken once, refused, away."""

from __future__ import annotations

import asyncio
import email
import json
from email import policy
from pathlib import Path

import pytest
from aiohttp import web

from infra.messages import ByChannel, Folder, HttpSms, Message, NotCarried, Smtp, messenger
from infra.settings import Settings
from schemas.errors import Invalid, Transient
from schemas.phone import e164, masked

SMS = Message(channel="sms", to="+201001234567", text="رمزك 123456", key="a/b-1")
MAIL = Message(channel="email", to="mona@hospital.example", subject="سجل: تقرير", text="تقرير جديد\n", key="k-1")


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("0100 123 4567", "+201001234567"),
        ("٠١٠٠١٢٣٤٥٦٧", "+201001234567"),
        ("+20-100-123-4567", "+201001234567"),
        ("0020 100 123 4567", "+201001234567"),
        ("+49 (30) 1234567", "+49301234567"),
    ],
)
def test_numbers_as_people_write_them(typed: str, number: str) -> None:
    assert e164(typed) == number
    assert masked(number) == f"…{number[-3:]}"


@pytest.mark.parametrize("typed", ["", "77", "1001234567", "+0100123456", "call me", "+20100123456789012"])
def test_what_is_no_number(typed: str) -> None:
    with pytest.raises(Invalid) as refused:
        e164(typed)
    assert not typed or typed not in str(refused.value)


def test_without_a_provider_a_file_that_its_owner_alone_reads(tmp_path: Path) -> None:
    carrier = Folder(tmp_path / "outbox")
    assert asyncio.run(carrier.send(SMS)) == asyncio.run(carrier.send(SMS))
    (file,) = (tmp_path / "outbox" / "sms").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text(encoding="utf-8")) == {"to": SMS.to, "subject": "", "text": SMS.text}


# ------------------------------------------------------------------------------------------------ SMS by HTTP


def by_http(status: int) -> tuple[list[tuple[dict[str, str], dict[str, str]]], str]:
    """What a gateway that answers `status` was asked, and what it said; raises what the carrier does."""
    asked: list[tuple[dict[str, str], dict[str, str]]] = []

    async def take(request: web.Request) -> web.Response:
        asked.append((await request.json(), dict(request.headers)))
        return web.Response(status=status, text="ref-7")

    async def run() -> str:
        app = web.Application()
        app.router.add_post("/sms", take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            return await HttpSms(f"http://127.0.0.1:{port}/sms", "t0ken").send(SMS)
        finally:
            await runner.cleanup()

    return asked, asyncio.run(run())


def test_an_sms_gateway_is_asked_with_a_key_and_a_token() -> None:
    asked, reference = by_http(202)
    ((body, headers),) = asked
    assert body == {"to": SMS.to, "text": SMS.text}
    assert (headers["Idempotency-Key"], headers["Authorization"]) == (SMS.key, "Bearer t0ken")
    assert reference == "ref-7"


@pytest.mark.parametrize(
    ("status", "error"), [(400, NotCarried), (404, NotCarried), (429, Transient), (503, Transient)]
)
def test_what_a_gateway_s_refusal_means(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        by_http(status)


def test_a_gateway_that_is_not_there_is_away() -> None:
    with pytest.raises(Transient):
        asyncio.run(HttpSms("http://127.0.0.1:9/sms", "").send(SMS))


# ------------------------------------------------------------------------------------------------ SMTP


class Server:
    """As much of RFC 5321 as takes one mail; `rcpt` is its answer to RCPT TO."""

    def __init__(self, rcpt: str = "250 ok") -> None:
        self.rcpt, self.mail, self.said = rcpt, b"", list[str]()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test ESMTP\r\n")
        while line := (await reader.readline()).decode().strip():
            self.said.append(line)
            word = line.split(" ")[0].upper()
            if word == "DATA":
                writer.write(b"354 go on\r\n")
                self.mail = (await reader.readuntil(b"\r\n.\r\n"))[:-5]
                writer.write(b"250 taken\r\n")
            elif word == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(f"{self.rcpt if word == 'RCPT' else '250 ok'}\r\n".encode())
        writer.close()

    def send(self, message: Message) -> str:
        async def run() -> str:
            server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            settings = Settings(smtp_host=f"127.0.0.1:{port}", smtp_security="none", mail_from="sijil@moh.example")
            async with server:
                return await Smtp(settings).send(message)

        return asyncio.run(run())


def test_mail_is_sent_in_arabic_with_an_id_of_its_key() -> None:
    server = Server()
    reference = server.send(MAIL)
    mail = email.message_from_bytes(server.mail, policy=policy.default)
    assert (mail["To"], mail["From"], mail["Subject"]) == (MAIL.to, "sijil@moh.example", MAIL.subject)
    assert mail["Message-ID"] == reference == "<k-1@moh.example>"
    assert mail.get_content().strip() == "تقرير جديد"
    assert mail["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize(("answer", "error"), [("550 no such user", NotCarried), ("450 busy", Transient)])
def test_what_a_mail_server_s_refusal_means(answer: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Server(answer).send(MAIL)


def test_an_address_with_a_line_s_end_is_none() -> None:
    with pytest.raises(NotCarried):
        Server().send(Message(channel="email", to="a@b.example\nBcc: c@d.example", text="x", key="k"))


def test_a_mail_server_that_is_not_there_is_away() -> None:
    with pytest.raises(Transient):
        asyncio.run(Smtp(Settings(smtp_host="127.0.0.1:9", smtp_security="none")).send(MAIL))


def test_each_channel_goes_by_its_own(tmp_path: Path) -> None:
    carrier = messenger(Settings(home=tmp_path))
    assert isinstance(carrier, ByChannel)
    asyncio.run(carrier.send(SMS))
    asyncio.run(carrier.send(MAIL))
    assert sorted(p.name for p in (tmp_path / "outbox").iterdir()) == ["email", "sms"]
