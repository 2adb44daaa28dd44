"""Short messages to people outside: SMS and e-mail, through whoever carries them.

A message says that there is something and where, never what: no name, no examination, no finding. Its key is the same
for every attempt at the same message, so that a provider that honours it sends once.

- SMS by an HTTP gateway where SIJIL_SMS_URL is set: `POST` of `{"to", "text"}` with `Idempotency-Key`, and
  `Authorization: Bearer SIJIL_SMS_TOKEN`. 2xx: taken; 408, 425, 429, 5xx: asked again; else refused.
- E-mail by SMTP (RFC 5321) where SIJIL_SMTP_HOST is set, with STARTTLS or TLS from the start.
- Else into a folder, `<home>/outbox/<channel>/<key>.json`, where one can look at them.
"""

from __future__ import annotations

import asyncio
import json
import os
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Literal, Protocol
from urllib.parse import quote

import aiohttp

from infra.settings import Settings
from schemas.errors import Permanent, Transient

Channel = Literal["sms", "email"]
TIMEOUT_S: Final = 20.0
SUBMISSION_PORT: Final = 587
AGAIN: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is sent to one person. `to`: E.164, or an address (RFC 5322 addr-spec)."""

    channel: Channel
    to: str
    text: str
    key: str
    """Of every attempt at it."""
    subject: str = ""


class NotCarried(Permanent):
    """The provider will not carry it, however often it is asked: a number or an address that is none."""


class Messenger(Protocol):
    """Who carries messages."""

    async def send(self, message: Message) -> str:
        """The provider's reference, when it has taken the message. Raises Transient, NotCarried."""


class Folder:
    """Where nobody carries them: a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: Message) -> str:
        """See Messenger."""
        return await asyncio.to_thread(self._write, message)

    def _write(self, message: Message) -> str:
        folder = self._folder / message.channel
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{quote(message.key, safe='')}.json"
        if not path.exists():
            told = {"to": message.to, "subject": message.subject, "text": message.text}
            new = path.with_suffix(f".{os.getpid()}.new")
            try:
                with os.fdopen(
                    os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
                ) as file:
                    json.dump(told, file, ensure_ascii=False, indent=1)
                new.replace(path)
            except OSError as e:
                raise Transient("the outbox folder cannot be written") from e
        return path.name


class HttpSms:
    """A gateway that takes SMS by HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token

    async def send(self, message: Message) -> str:
        """See Messenger."""
        headers = {"Idempotency-Key": message.key}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session,
                session.post(self._url, json={"to": message.to, "text": message.text}, headers=headers) as answer,
            ):
                status, reference = answer.status, (await answer.text())[:200]
        except (aiohttp.ClientError, TimeoutError) as e:
            raise Transient("the SMS gateway does not answer") from e
        if status in AGAIN or status >= 500:
            raise Transient(f"the SMS gateway answered {status}")
        if status >= 300:
            raise NotCarried(f"the SMS gateway refused the message: {status}")
        return reference


class Smtp:
    """A mail server that takes mail from us."""

    def __init__(self, settings: Settings) -> None:
        host, colon, port = settings.smtp_host.rpartition(":")
        self._host, self._port = (
            (host, int(port)) if colon and port.isdigit() else (settings.smtp_host, SUBMISSION_PORT)
        )
        self._security = settings.smtp_security
        self._user, self._password, self._sender = settings.smtp_user, settings.smtp_password, settings.mail_from

    async def send(self, message: Message) -> str:
        """See Messenger. The Message-ID is made of the key: mail that came twice is known as one."""
        mail = EmailMessage()
        domain = self._sender.rpartition("@")[2] or "localhost"
        reference = f"<{quote(message.key, safe='')}@{domain}>"
        try:
            mail["From"], mail["To"], mail["Subject"] = self._sender, message.to, message.subject
        except ValueError as e:  # a line's end in a header
            raise NotCarried("this is no address for mail") from e
        mail["Message-ID"] = reference
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        await asyncio.to_thread(self._send, mail)
        return reference

    def _send(self, mail: EmailMessage) -> None:
        context = ssl.create_default_context()
        try:
            if self._security == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_S, context=context)
            else:
                server = smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_S)
            with server:
                if self._security == "starttls":
                    server.starttls(context=context)
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as e:
            codes = [code for code, _ in e.recipients.values()]
            if codes and all(500 <= code < 600 for code in codes):
                raise NotCarried("the mail server knows no such address") from e
            raise Transient("the mail server does not take mail for this address now") from e
        except (OSError, smtplib.SMTPException) as e:
            raise Transient("the mail server does not take mail now") from e


class ByChannel:
    """Each channel has its own carrier."""

    def __init__(self, carriers: Mapping[Channel, Messenger]) -> None:
        self._carriers = carriers

    async def send(self, message: Message) -> str:
        """See Messenger."""
        return await self._carriers[message.channel].send(message)


def messenger(settings: Settings) -> Messenger:
    """As the settings say."""
    folder = Folder(settings.home / "outbox")
    return ByChannel(
        {
            "sms": HttpSms(settings.sms_url, settings.sms_token) if settings.sms_url else folder,
            "email": Smtp(settings) if settings.smtp_host else folder,
        }
    )
