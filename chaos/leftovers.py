"""What is still there once every client has gone: nothing should run, every block and every place should be free."""

import asyncio
from collections.abc import Sequence

from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import ClusterServiceStub
from whimbrel.worker.v1 import worker_pb2
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from cli.cluster import LocalCluster
from mesh.clients.channel import connect, unary
from mesh.errors import MeshError
from mesh.facts import Kind

PATIENCE_S, LOOK_S, STATUS_S = 30.0, 0.2, 10.0


async def leftovers(cluster: LocalCluster) -> list[str]:
    """In words, what a worker or the scheduler still holds after a while of peace."""
    names = [process.program.id for process in cluster.processes if process.program.kind is Kind.WORKER]
    found = await _left(cluster, names)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while found := await _left(cluster, names):  # noqa: ASYNC110  GetStatus cannot be watched
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        pass
    return found


async def _left(cluster: LocalCluster, names: Sequence[str]) -> list[str]:
    looking = [_of_scheduler(cluster), *(_of_worker(cluster, name) for name in names)]
    try:
        return [text for texts in await asyncio.gather(*looking) for text in texts]
    except MeshError as error:
        return [f"nobody can tell: {error.message}"]  # somebody may be about to lead


async def _of_scheduler(cluster: LocalCluster) -> list[str]:
    async with connect(cluster.gateway_address) as channel:
        call = ClusterServiceStub(channel).ListRequests(pb.ClusterServiceListRequestsRequest(), timeout=STATUS_S)
        found = (await unary(call, "the gateway")).requests
    return [f"the scheduler: {one.request_id} has a place at {one.worker_id or 'none'}" for one in found]


async def _of_worker(cluster: LocalCluster, name: str) -> list[str]:
    async with connect(cluster.process(name).address.result()) as channel:
        call = WorkerServiceStub(channel).GetStatus(worker_pb2.GetStatusRequest(), timeout=STATUS_S)
        status = await unary(call, name)
    return [
        f"{name}: {one.model} has {one.running} running, {one.waiting} waiting, "
        f"{one.total_blocks - one.free_blocks} of {one.total_blocks} blocks taken"
        for one in status.replicas
        if one.running or one.waiting or one.free_blocks != one.total_blocks
    ]
