"""One process life: load settings, reach the state, serve, drain. Every service's __main__ is a call of `main`."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog
import uvloop
from grpc import aio
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import start_http_server

from mesh.errors import MeshError, Unreachable
from mesh.facts import Kind, Member
from mesh.interceptor import Surround
from mesh.reflection import enable_reflection
from mesh.settings import BadSettings, ServiceSettings
from mesh.state.connection import State
from mesh.state.embedded import embedded_redis
from mesh.state.leases import Membership
from mesh.telemetry import configure_logs

log = structlog.get_logger()
CHANNELZ = "grpc.channelz.v1.Channelz"
S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One gRPC service on a server."""

    name: str  # full name, such as whimbrel.store.v1.StoreService
    mount: Callable[[aio.Server], None]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a service is given to stand on."""

    state: State
    membership: Membership
    draining: asyncio.Event  # set when shutdown begins: end your long streams
    failed: asyncio.Future[object]  # an exception here ends the process

    @property
    def me(self) -> Member:
        """This process, with its address and its fence."""
        return self.membership.member


Build = Callable[[S, Ground], AbstractAsyncContextManager[Sequence[Mounted]]]


def main(kind: Kind, settings_type: type[S], build: Build[S]) -> None:
    """Runs one service until SIGTERM or SIGINT. Exit codes: 0 stopped, 1 failed, 2 wrong settings."""
    try:
        settings = settings_type.load()
    except BadSettings as error:
        sys.exit(_say(str(error), 2))
    configure_logs(kind, settings.log_level)
    try:
        uvloop.run(_life(kind, settings, build))
    except MeshError as error:
        sys.exit(_say(f"{kind}: {error.message}", 1))


def _say(message: str, code: int) -> int:
    sys.stderr.write(message + "\n")
    return code


async def _life(kind: Kind, settings: S, build: Build[S]) -> None:
    told = _when_told()
    async with AsyncExitStack() as stack:
        url = settings.redis_url or await stack.enter_async_context(embedded_redis())
        state = await stack.enter_async_context(State(url, settings.cluster))
        server = aio.server(interceptors=[Surround()], options=_options(settings))
        port = _bind(server, settings)
        address = settings.advertise or f"{settings.host}:{port}"
        member = Member(kind, settings.id or f"{kind}-{settings.node}-{port}", settings.node, address)
        membership = await stack.enter_async_context(Membership(state, member, settings.lease_s))
        ground = Ground(state, membership, asyncio.Event(), asyncio.get_running_loop().create_future())
        mounted = await stack.enter_async_context(build(settings, ground))
        await stack.enter_async_context(_serving(server, mounted, settings, ground.draining))
        if settings.metrics_port >= 0:
            start_http_server(settings.metrics_port, settings.host)
        print(f"{kind} {member.id} listens on {address}", flush=True)  # noqa: T201  the launcher reads it
        await _until(told, membership.superseded, ground.failed)


def _bind(server: aio.Server, settings: ServiceSettings) -> int:
    """The port that we listen on; Unreachable when another process has it."""
    target = f"{settings.host}:{settings.port}"
    try:
        return server.add_insecure_port(target)
    except RuntimeError as error:
        raise Unreachable(
            f"cannot listen on {target}: is another process there? Set WHIMBREL_PORT, or 0 for any free port"
        ) from error


def _options(settings: ServiceSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.enable_channelz", 1),
    ]


@asynccontextmanager
async def _serving(
    server: aio.Server, mounted: Sequence[Mounted], settings: ServiceSettings, draining: asyncio.Event
) -> AsyncIterator[None]:
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    channelz.add_channelz_servicer(server)
    for service in mounted:
        service.mount(server)
    names = [service.name for service in mounted]
    enable_reflection(server, [*names, health.SERVICE_NAME, CHANNELZ])
    await server.start()
    for name in ["", *names]:
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield
    finally:
        log.info("draining")
        await healthy.enter_graceful_shutdown()
        await asyncio.sleep(settings.drain_s)  # clients that watch health go elsewhere meanwhile
        draining.set()
        await server.stop(settings.grace_s)


def _when_told() -> asyncio.Event:
    """Set at SIGTERM or SIGINT, from now on: one that comes while we start ends us in order, too."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    return told


async def _until(told: asyncio.Event, *failures: asyncio.Future[object]) -> None:
    """Returns when told to stop; raises what a failure holds."""
    stopped: asyncio.Future[object] = asyncio.ensure_future(told.wait())
    await asyncio.wait([stopped, *failures], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for failure in failures:
        if failure.done():
            failure.result()


@asynccontextmanager
async def owned(work: Coroutine[object, object, None], ground: Ground) -> AsyncIterator[None]:
    """Runs `work` beside the block and cancels it after; its failure ends the process, loudly."""
    task = asyncio.create_task(work)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not ground.failed.done():
            ground.failed.set_exception(error)

    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
