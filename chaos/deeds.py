"""Does to the cluster what a trouble says, and mends it again. Which trouble comes when is in storm.py."""

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import TypeVar

import structlog
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import ClusterServiceStub
from whimbrel.inference.v1 import inference_pb2

from chaos.crowd import Crowd
from chaos.redis import Valkey
from chaos.troubles import Deed, Trouble
from cli.cluster import LocalCluster
from cli.process import ServiceProcess
from mesh.clients.channel import connect, unary
from mesh.clients.gateway import GatewayClient
from mesh.errors import MeshError, NotFound, Unreachable
from mesh.facts import Kind

log = structlog.get_logger()
T = TypeVar("T")
AT_ONCE = {Kind.WORKER: 2, Kind.GATEWAY: 1, Kind.SCHEDULER: 1, Kind.STORE: 1}  # that are down, or stalled, together
MOVE_S, DRAIN_S, RESTARTS = 30.0, 5.0, 4
UNDRAIN_TRIES, BETWEEN_TRIES_S = 40, 0.5
MOVE_KINDS = (
    inference_pb2.MOVE_KIND_UNSPECIFIED,
    inference_pb2.MOVE_KIND_KV,
    inference_pb2.MOVE_KIND_TOKENS,
)


class Deeds:
    """Each returns when the cluster is as it was, with a word on how it went; "" where there was nothing to befall."""

    def __init__(self, cluster: LocalCluster, valkey: Valkey, crowd: Crowd) -> None:
        self._cluster, self._valkey, self._crowd = cluster, valkey, crowd
        self._gateways = cluster.gateway_addresses  # they keep them when they are started again
        self._struck: set[str] = set()  # processes, "redis" among them, that are down or stalled, or drained

    async def do(self, trouble: Trouble) -> str:
        """Does it, and mends what it broke."""
        match trouble.deed:
            case Deed.KILL:
                return await self._kill(trouble)
            case Deed.STALL:
                return await self._stall(trouble)
            case Deed.REDIS_KILL | Deed.REDIS_STALL:
                return await self._redis(trouble)
            case Deed.MOVE:
                return await self._move(trouble)
            case Deed.DRAIN:
                return await self._drain(trouble)

    def is_struck(self, name: str) -> bool:
        """Whether it is down, or being started, by our doing."""
        return name in self._struck

    async def revive(self, name: str) -> None:
        """Starts a process again that ended by itself."""
        self._struck.add(name)
        await self._restart(name)

    async def _kill(self, trouble: Trouble) -> str:
        process = self._victim(trouble)
        if process is None:
            return ""
        name = process.program.id
        self._struck.add(name)
        await self._cluster.kill(name)
        await self._restart(name)
        return name

    async def _restart(self, name: str) -> None:
        """Tries more than once: what it needs at its start may be away."""
        for _ in range(RESTARTS):
            try:
                await self._cluster.restart(name)
            except Unreachable as error:
                log.warning("did not start", process=name, error=error.message)
            else:
                self._struck.discard(name)
                return
        raise Unreachable(f"{name} does not start any more; see its log", reason="PROCESS_ENDED")

    async def _stall(self, trouble: Trouble) -> str:
        process = self._victim(trouble)
        if process is None:
            return ""
        name, pid = process.program.id, process.pid
        self._struck.add(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(trouble.for_s)
        finally:
            if not process.ended.done():
                os.kill(pid, signal.SIGCONT)
        self._struck.discard(name)
        return name

    async def _redis(self, trouble: Trouble) -> str:
        if "redis" in self._struck:
            return ""
        self._struck.add("redis")
        if trouble.deed is Deed.REDIS_KILL:
            await self._valkey.kill()
            await asyncio.sleep(trouble.for_s)
            await self._valkey.start()
        else:
            self._valkey.stop()
            await asyncio.sleep(trouble.for_s)
            self._valkey.cont()
        self._struck.discard("redis")
        return "redis"

    async def _move(self, trouble: Trouble) -> str:
        running = self._crowd.running
        gateways = self._healthy(Kind.GATEWAY)
        if not running or not gateways:
            return ""
        heard = _pick(running, trouble.chance)
        kind = MOVE_KINDS[trouble.number % len(MOVE_KINDS)]
        request = pb.ClusterServiceMoveRequest(request_id=heard.question.request_id, kind=kind)
        address = _pick(gateways, trouble.chance).address.result()
        try:
            async with connect(address) as channel:
                await unary(ClusterServiceStub(channel).Move(request, timeout=MOVE_S), f"gateway at {address}")
        except MeshError as error:
            return f"refused: {error.reason}"
        return "moved"

    async def _drain(self, trouble: Trouble) -> str:
        process, gateways = self._victim(trouble, Kind.WORKER), self._healthy(Kind.GATEWAY)
        if process is None or not gateways:
            return ""
        name = process.program.id
        self._struck.add(name)
        try:
            async with connect(_pick(gateways, trouble.chance).address.result()) as channel:
                return await self._drained(GatewayClient(channel, "a gateway"), name)
        finally:
            await self._undrained(name)
            self._struck.discard(name)

    async def _drained(self, client: GatewayClient, name: str) -> str:
        try:
            async with asyncio.timeout(DRAIN_S):
                async for _ in client.drain(name):
                    pass
        except TimeoutError:
            return "not empty in time"
        except MeshError as error:
            return f"refused: {error.reason}"
        return "emptied"

    async def _undrained(self, name: str) -> None:
        """Until a gateway has done it: nothing else would let the worker work again."""
        for number in range(UNDRAIN_TRIES):
            address = self._gateways[number % len(self._gateways)]
            try:
                async with connect(address) as channel:
                    await GatewayClient(channel, address).undrain(name)
                return
            except NotFound:
                return
            except MeshError as error:
                log.info("not undrained", worker=name, error=error.message)
                await asyncio.sleep(BETWEEN_TRIES_S)

    def _victim(self, trouble: Trouble, kind: Kind | None = None) -> ServiceProcess | None:
        kind = kind or trouble.kind
        healthy = self._healthy(kind)
        struck = sum(name.startswith(f"{kind}-") for name in self._struck)
        if struck >= AT_ONCE[kind] or len(healthy) < 2:
            return None
        return _pick(healthy, trouble.chance)

    def _healthy(self, kind: Kind) -> list[ServiceProcess]:
        all_of = [process for process in self._cluster.processes if process.program.kind is kind]
        return [process for process in all_of if not process.ended.done() and process.program.id not in self._struck]


def _pick(among: Sequence[T], chance: float) -> T:
    return among[int(chance * len(among))]
