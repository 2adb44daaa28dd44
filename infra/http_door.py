"""The HTTP door: one application, to which the rooms add their handlers by entry points, and the process that runs it.

An entry point of group `sijil.http` is `register(app: FastAPI, door: HttpDoor) -> None`. Through the door it finds the
settings and the ports, and says what it needs: work at start and stop, checks of readiness, backlogs, body limits.
The door itself answers `/`, `/docs`, `/openapi.json`, `/health/*` and `/metrics`. No access log: query strings are
patient data.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import entry_points, version
from types import FrameType

import click
import uvicorn
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from infra import http_pages, telemetry
from infra.chain import ChainedLog
from infra.committed import CommittedInstances
from infra.health import readiness
from infra.http_edge import Edge
from infra.http_problems import install, problem
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.ports import Log, Objects
from infra.settings import Settings

__all__ = ["HttpDoor", "Register", "command", "compose", "problem"]

log = telemetry.logger(__name__)

ENTRY_POINTS = "sijil.http"
STOP_S = 10.0
"""Open requests, and then each room's work at stop, have so long."""
KEEP_ALIVE_S = 75

Task = Callable[[], Awaitable[None]]
Front = Callable[[ASGIApp], ASGIApp]
"""Makes the application of another port of the one behind it."""


class HttpDoor:
    """What a room needs of the process that answers HTTP."""

    def __init__(self, settings: Settings, *, log: Log, chain: ChainedLog, objects: Objects) -> None:
        self.settings, self.log, self.chain, self.objects = settings, log, chain, objects
        self.starts: list[Task] = []
        self.stops: list[Task] = []
        self.checks: dict[str, Callable[[], bool | str]] = {}
        self.backlogs: dict[str, Callable[[], int]] = {"chain_backlog": lambda: chain.backlog}
        self.body_limits: dict[str, int | None] = {}
        self.committed: CommittedInstances | None = None
        """What the whole archive has; None while no room answers that."""
        self.fronts: dict[int, Front] = {}
        self.stopping = False
        """The process ends: answers without an end of their own end now."""

    def on_start(self, task: Task) -> None:
        """Awaited before the door opens, in the order of registration; an error ends the process."""
        self.starts.append(task)

    def on_stop(self, task: Task) -> None:
        """Awaited when no request is open any more, last registered first; its error does not keep others from it."""
        self.stops.append(task)

    def readiness(self, name: str, check: Callable[[], bool | str]) -> None:
        """`check` returns at once: True, or False or a reason (no values, no secrets) when the part is not ready."""
        self.checks[name] = check

    def backlog(self, name: str, figure: Callable[[], int]) -> None:
        """A figure of `/health/ready`, for example `spool_backlog`."""
        self.backlogs[name] = figure

    def body_limit(self, prefix: str, bytes_max: int | None) -> None:
        """Most bytes of a request's body under a path; None: no limit, the handler streams it. Elsewhere: 1 MiB."""
        self.body_limits[prefix] = bytes_max

    def front(self, port: int, make: Front) -> None:
        """Listen on another port too, where what `make` makes of the application answers."""
        self.fronts[port] = make

    def ready(self) -> tuple[int, dict[str, object]]:
        """(HTTP status, body) of `/health/ready`."""
        found = {name: check() for name, check in self.checks.items()}
        status, body = readiness({n: f is True for n, f in found.items()}, {n: f() for n, f in self.backlogs.items()})
        reasons = {n: f for n, f in found.items() if isinstance(f, str)}
        return status, body | ({"reasons": reasons} if reasons else {})

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Starts what was registered, and stops it, also when a later start failed."""
        try:
            for start in self.starts:
                await start()
            yield
        finally:
            for stop in reversed(self.stops):
                try:
                    async with asyncio.timeout(STOP_S):
                        await stop()
                except Exception as error:  # noqa: BLE001 (logged; what is registered before must still be stopped)
                    log.error("stop failed", error=error)


Register = Callable[[FastAPI, HttpDoor], None]


def installed() -> list[Register]:
    """What the rooms register, by name."""
    return [e.load() for e in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name)]


def compose(door: HttpDoor, registers: list[Register]) -> FastAPI:
    """The application: the rooms' handlers behind one edge."""
    app = FastAPI(
        title="Sijil",
        version=version("sijil"),
        description="An event-sourced national radiology archive: DICOMweb (PS3.18), reports, patients' files and the"
        " trail of who saw what. Problems are RFC 9457 JSON.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=door.lifespan,
        redirect_slashes=False,
        # FastAPI's own telemetry would record messages of exceptions and rejected values.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.add_middleware(Edge, limits=door.body_limits)
    install(app)
    _own_pages(app, door)
    for register in registers:
        register(app, door)
    return app


def _own_pages(app: FastAPI, door: HttpDoor) -> None:
    settings = door.settings
    page: list[str] = []

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        text = http_pages.home(
            site=settings.site,
            dicom=f"{settings.ae_title}@{settings.dicom_host}:{settings.dicom_port}",
            base=f"http://{settings.http_host}:{settings.http_port}/dicom-web",
            viewer=f"http://{settings.http_host}:{settings.viewer_port}/",
        )
        return HTMLResponse(text, headers=http_pages.HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        if not page:
            page.append(http_pages.docs(app.openapi()))
        return HTMLResponse(page[0], headers=http_pages.HEADERS)

    @app.get("/health/live", tags=["Operation"], summary="The process answers")
    async def live() -> Response:
        return JSONResponse({"live": True})

    @app.get("/health/ready", tags=["Operation"], summary="Every part that the door needs is there (503: not)")
    async def ready() -> Response:
        status, body = door.ready()
        return JSONResponse(body, status)

    @app.get("/metrics", tags=["Operation"], summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


class ByPort:
    """Gives a request to the application of the port it came in by."""

    def __init__(self, app: ASGIApp, fronts: Mapping[int, Front]) -> None:
        self._app = app
        self._fronts = {port: make(app) for port, make in fronts.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        port = (scope.get("server") or ("", 0))[1]
        await self._fronts.get(port, self._app)(scope, receive, send)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address, before any request can come."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((host, port))
    return found


class _Server(uvicorn.Server):
    """Tells the door that it ends, before it waits for open answers."""

    def __init__(self, config: uvicorn.Config, door: HttpDoor) -> None:
        super().__init__(config)
        self._door = door

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._door.stopping = True
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> None:
    """Run the door until SIGTERM or SIGINT. Open requests have STOP_S to end."""
    kafka = KafkaLog(settings)
    objects = S3Objects(settings)
    chain = ChainedLog.open(settings, "api", kafka, objects)
    try:
        door = HttpDoor(settings, log=kafka, chain=chain, objects=objects)
        app = compose(door, installed())
        sockets = [listen(settings.http_host, port) for port in (settings.http_port, *door.fronts)]
        config = uvicorn.Config(
            ByPort(app, door.fronts),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(STOP_S),
            backlog=1024,
        )
        # uvicorn raises the signal again once it has shut down; by then it is obeyed.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server = _Server(config, door)
        server.run(sockets)
    finally:
        chain.close(STOP_S)
        kafka.close()
    if not server.started:
        raise SystemExit(1)


@click.command("api")
def command() -> None:
    """Run the HTTP door: DICOMweb, reports, patients' files, the access trail, /docs."""
    settings = Settings.load("api")
    telemetry.setup("api", settings.log_level)
    log.info("http door opens", host=settings.http_host, port=settings.http_port)
    serve(settings)
