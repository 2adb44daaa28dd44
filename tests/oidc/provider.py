"""The provider as a process of node, and a browser at its log-in form."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urljoin

import httpx

from tests.jars import packages

HERE = Path(__file__).parent


class Provider:
    """One that runs. `base` is its issuer URL."""

    def __init__(self, port: int, clients: Sequence[dict[str, Any]]) -> None:
        node = shutil.which("node")
        assert node, "node is needed (Debian: apt-get install nodejs)"
        self.base = f"http://127.0.0.1:{port}"
        modules = packages(HERE / "package-lock.json")
        command = [node, "--no-warnings", str(HERE / "provider.mjs"), str(port), str(modules), json.dumps(clients)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._wait("ready")

    def rotate(self) -> None:
        """It signs with a new key; the old one is in its JWKS no more."""
        assert self.process.stdin is not None
        self.process.stdin.write("rotate\n")
        self.process.stdin.flush()
        self._wait("rotated")

    def stop(self) -> None:
        """It is away."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _wait(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"the provider ended before it was {word}")

    def post(self, path: str, form: dict[str, str], client: str, secret: str) -> httpx.Response:
        """A form of a client that proves itself by Basic (RFC 6749 §2.3.1)."""
        proof = quote_plus(client), quote_plus(secret)
        return httpx.post(self.base + path, data=form, auth=proof, timeout=20)

    def token(self, client: str, secret: str, resource: str) -> str:
        """A service's access token (RFC 6749 §4.4, RFC 8707)."""
        form = {"grant_type": "client_credentials", "resource": resource}
        answer = self.post("/token", form, client, secret)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token


@contextmanager
def running(clients: Sequence[dict[str, Any]]) -> Iterator[Provider]:
    """A provider on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    provider = Provider(port, clients)
    try:
        yield provider
    finally:
        provider.stop()


def log_in(where: str, user: str, callback: str) -> str:
    """Fill in the provider's form at `where`; the address that the browser is sent back to."""
    with httpx.Client(timeout=20) as browser:
        answer = browser.get(where)
        for _ in range(10):
            if answer.is_redirect:
                where = urljoin(str(answer.url), answer.headers["location"])
                if where.startswith(callback):
                    return where
                answer = browser.get(where)
                continue
            assert answer.status_code == 200, answer.text
            (form,) = re.findall(r'<form[^>]* action="([^"]+)"', answer.text)
            fields = {"prompt": "login", "login": user, "password": "any"}
            answer = browser.post(urljoin(str(answer.url), form), data=fields)
    raise AssertionError("the provider sends the browser in circles")
