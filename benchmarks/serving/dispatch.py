"""Requests a second of warm dispatch: client, gateway, scheduler, a worker without work, and back."""

from dataclasses import dataclass

from whimbrel.worker.v1.worker_pb2 import GetStatusRequest
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from benchmarks.models import random_llama
from benchmarks.series import BenchmarkBroken, Series
from benchmarks.serving.load import Load, drive, drive_h2load, h2load
from benchmarks.serving.stage import Stage
from mesh.clients.channel import connect
from mesh.clients.gateway_records import ModelState

MODEL = "dispatched"
WORKER = "worker-zero"
PARAMETERS_B = 0.1
AT_ONCE = 48
STATUS_S = 10.0


@dataclass(frozen=True, slots=True)
class DispatchFigures:
    """Requests a second of each round; `h2load` is None where it is not installed."""

    at_once: int
    python: Series
    h2load: Series | None

    @property
    def best(self) -> Series:
        """Of the client that costs the machine the least."""
        return self.h2load or self.python


async def measure_dispatch(stage: Stage) -> DispatchFigures:
    """Alternates the clients. Every answer is one token."""
    duration_s, count = (1.5, 2) if stage.quick else (4.0, 7)
    model = await stage.deploy(MODEL, await random_llama(stage.models_dir, PARAMETERS_B))
    settings = {"WHIMBREL_ID": WORKER, "WHIMBREL_MODEL": MODEL, "WHIMBREL_DIGEST": model.checkpoint.digest}
    async with stage.worker("benchmarks.serving.zero_worker", settings):
        await stage.until(MODEL, ModelState.READY)
        load = Load(stage.cluster.gateway_address, MODEL, AT_ONCE)
        stage.say(f"dispatch: {AT_ONCE} requests at once; h2load: {h2load() or 'not installed (nghttp2-client)'}")
        rate = await drive(load, 1.0)  # connections are made, code is warm
        python, others = [], []
        for number in range(count):
            stage.say(f"  round {number + 1} of {count}")
            python.append(rate := await drive(load, duration_s))
            if program := h2load():
                others.append(await _counted(stage, program, load, round(rate * duration_s)))
    return DispatchFigures(AT_ONCE, Series.of(python), Series.of(others) if others else None)


async def _counted(stage: Stage, program: str, load: Load, requests: int) -> float:
    """h2load, believed only if the worker has given as many answers."""
    before = await _answered(stage)
    rate = await drive_h2load(program, load, requests)
    if (answered := await _answered(stage) - before) != requests:
        raise BenchmarkBroken(f"h2load counted {requests} answers, and the worker gave {answered}")
    return rate


async def _answered(stage: Stage) -> int:
    """Requests that the worker has answered since it began."""
    members = await stage.client.cluster()
    address = next(member.address for member in members if member.id == WORKER)
    async with connect(address) as channel:
        status = await WorkerServiceStub(channel).GetStatus(GetStatusRequest(), timeout=STATUS_S)
    return sum(replica.steps for replica in status.replicas)
