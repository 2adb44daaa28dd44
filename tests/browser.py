"""Debian's Chromium without a window, by its DevTools protocol: what people see, asked as they see it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

LOOK_S = 0.2
PROGRAM = "/usr/bin/chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--remote-debugging-port=0",
)
START_S = 30.0
ALT, CONTROL = 1, 2
"""Bits of Input.dispatchKeyEvent's `modifiers`."""


def installed() -> bool:
    """Whether there is a browser."""
    return shutil.which(PROGRAM) is not None


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.problems: list[str] = []
        """Uncaught exceptions, errors of the console, violations of the content security policy."""
        self.requests: list[str] = []
        """URLs asked for."""

    async def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol and its result; events that come meanwhile are noted."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=60)
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                self.requests.append(url)
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.problems.append(details.get("exception", {}).get("description", details["text"]))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", **entry}}}:
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")

    async def evaluate(self, expression: str) -> Any:
        """A JavaScript value; promises are awaited."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, expression: str, within_s: float = 60.0) -> Any:
        """The first true value. A failure tells what the page shows and complains of."""
        for _ in range(int(within_s / LOOK_S)):
            if value := await self.evaluate(expression):
                return value
            await asyncio.sleep(LOOK_S)
        # A page that did not load, or is just being replaced, has no body.
        shown = await self.evaluate("(document.body?.innerText ?? document.documentElement?.outerHTML ?? '')")
        raise AssertionError(f"never true: {expression}\nshown: {shown[:2000]}\nproblems: {self.problems}")

    async def go(self, url: str) -> None:
        """Load an address."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def click(self, x: float, y: float, times: int = 1) -> None:
        """Clicks of the left button."""
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)

    async def swipe(self, selector: str, dx: float, steps: int = 4) -> None:
        """A finger across the middle of an element, `dx` pixels to the right."""
        x, y = await self._middle(selector)
        for kind, n in (("touchStart", 0), *(("touchMove", n) for n in range(1, steps + 1)), ("touchEnd", 0)):
            points = [] if kind == "touchEnd" else [{"x": x + dx * n / steps, "y": y}]
            await self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    async def open(self, url: str) -> None:
        """Load an address and wait until it is there."""
        await self.go(url)
        await self.loaded()

    async def loaded(self) -> None:
        """The document that is on its way is there, with its style sheet and fonts."""
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        await self.evaluate("document.fonts.ready.then(() => 0)")

    async def press(self, selector: str) -> None:
        """Click in the middle of an element."""
        await self.click(*await self._middle(selector))

    async def _middle(self, selector: str) -> tuple[float, float]:
        x, y = await self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        return x, y

    async def fill(self, selector: str, text: str) -> None:
        """Put text into a field, as typed."""
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)

    async def key(self, name: str, code: int, held: int = 0) -> None:
        """One key, down and up, while others are held (ALT, CONTROL)."""
        text = {"text": "\r"} if name == "Enter" and not held else {}
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name.removeprefix("Digit"),
                code=name,
                windowsVirtualKeyCode=code,
                modifiers=held,
                **text,
            )

    async def size(self, width: int, height: int = 800) -> None:
        """The window's."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def screenshot(self) -> bytes:
        """PNG of what is shown."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def browser(folder: Path, width: int = 1280, height: int = 800) -> AsyncIterator[Page]:
    """A tab of a browser with a profile of its own in `folder`, ended afterwards with all its processes."""
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{height}",
            "about:blank",
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        port = await _port(folder / "profile" / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                address = next(t for t in await answer.json() if t["type"] == "page")["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _port(file: Path) -> int:
    async with asyncio.timeout(START_S):
        while not (lines := _lines(file)):  # noqa: ASYNC110 (written by another process)
            await asyncio.sleep(0.1)
    return int(lines[0])


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
