"""Requests a second of warm dispatch: client, gateway, scheduler, a worker without work, and back."""

from collections.abc import Mapping
from dataclasses import dataclass

from whimbrel.worker.v1.worker_pb2 import GetStatusRequest
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from benchmarks.cpu import cpu_s
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
class DispatchRound:
    """Requests a second, of each client in turn; `h2load` is None where it is not installed."""

    python: float
    cpu_us: Mapping[str, float]  # processor time a request, by process, while the Python clients asked
    h2load: float | None


@dataclass(frozen=True, slots=True)
class DispatchFigures:
    """All rounds, with `at_once` requests under way at any time."""

    at_once: int
    rounds: tuple[DispatchRound, ...]

    @property
    def python(self) -> Series:
        """Requests a second from asyncio clients."""
        return Series.of(one.python for one in self.rounds)

    @property
    def h2load(self) -> Series | None:
        """Requests a second from h2load."""
        rates = [one.h2load for one in self.rounds if one.h2load is not None]
        return Series.of(rates) if rates else None

    @property
    def best(self) -> Series:
        """Of the client that costs the machine the least."""
        return self.h2load or self.python

    def cpu_us(self, process: str) -> Series:
        """Processor time a request."""
        return Series.of(one.cpu_us[process] for one in self.rounds)


async def measure_dispatch(stage: Stage) -> DispatchFigures:
    """Alternates the clients. Every answer is one token."""
    duration_s, count = (1.0, 2) if stage.quick else (4.0, 7)
    deployed = await stage.deploy(MODEL, PARAMETERS_B)
    settings = {"WHIMBREL_ID": WORKER, "WHIMBREL_MODEL": MODEL, "WHIMBREL_DIGEST": deployed.digest}
    async with stage.worker("benchmarks.serving.zero_worker", settings) as worker_pid:
        await stage.until(MODEL, ModelState.READY)
        pids = {name: stage.cluster.process(f"{name}-1").pid for name in ("gateway", "scheduler")}
        pids["worker"] = worker_pid
        load = Load(stage.cluster.gateway_address, MODEL, AT_ONCE)
        stage.say(f"dispatch: {AT_ONCE} requests at once; h2load: {h2load() or 'not installed (nghttp2-client)'}")
        await drive(load, duration_s / 2)  # connections are made, code is warm
        rounds = []
        for number in range(count):
            stage.say(f"  round {number + 1} of {count}")
            rounds.append(await _round(stage, load, duration_s, pids))
    return DispatchFigures(AT_ONCE, tuple(rounds))


async def _round(stage: Stage, load: Load, duration_s: float, pids: Mapping[str, int]) -> DispatchRound:
    before_s = {name: cpu_s(pid) for name, pid in pids.items()}
    driven = await drive(load, duration_s)
    cpu_us = {name: (cpu_s(pid) - before_s[name]) / driven.answers * 1e6 for name, pid in pids.items()}
    program = h2load()
    rate = await _counted(stage, program, load, driven.answers) if program else None
    return DispatchRound(driven.per_s, cpu_us, rate)


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
