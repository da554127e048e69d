"""Load on the public API: as many requests at once as wished, from Python and, where it is installed, from h2load."""

import asyncio
import re
import shutil
import struct
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from grpc import aio
from whimbrel.gateway.v1.gateway_pb2 import GenerateRequest
from whimbrel.gateway.v1.gateway_pb2_grpc import GenerationServiceStub
from whimbrel.inference.v1.inference_pb2 import SamplingParams, TokenIds

from benchmarks.series import BenchmarkBroken
from mesh.clients.channel import connect

CLIENTS = 4  # connections
REQUEST_S = 60.0
METHOD = "/whimbrel.gateway.v1.GenerationService/Generate"
FINISHED = re.compile(r"finished in .*?, ([\d.]+) req/s")
SUCCEEDED = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored")


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask whom; `at_once` requests are under way at any time."""

    address: str
    model: str
    at_once: int

    def request(self) -> GenerateRequest:
        """One token after one token."""
        sampling = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
        return GenerateRequest(model=self.model, token_ids=TokenIds(ids=[5]), sampling=sampling)


@dataclass(frozen=True, slots=True)
class Driven:
    """What a load got."""

    answers: int
    elapsed_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answers / self.elapsed_s


async def drive(load: Load, duration_s: float) -> Driven:
    """Asks from asyncio clients in this process; each answer is read to its end."""
    request = load.request()
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connect(load.address)) for _ in range(CLIENTS)]
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(_ask_until(channels[number % CLIENTS], request, began_s + duration_s))
                for number in range(load.at_once)
            ]
        return Driven(sum(task.result() for task in asking), time.perf_counter() - began_s)


async def _ask_until(channel: aio.Channel, request: GenerateRequest, end_s: float) -> int:
    """Answers that came whole."""
    stub, count = GenerationServiceStub(channel), 0
    while time.perf_counter() < end_s:
        event = None
        async for response in stub.Generate(request, timeout=REQUEST_S):
            event = response.WhichOneof("event")
        if event != "finished":
            raise BenchmarkBroken("an answer ended before its time; see the gateway's log")
        count += 1
    return count


def h2load() -> str | None:
    """Where it is; Debian has it in nghttp2-client."""
    return shutil.which("h2load")


async def drive_h2load(program: str, load: Load, requests: int) -> float:
    """Requests a second from h2load. It does not read answers: count them where they are made."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-load-") as scratch:
        body = write_body(load, Path(scratch, "body"))
        output = await _run([
            program, "-c", str(CLIENTS), "-m", str(load.at_once // CLIENTS), "-n", str(requests), "-d", str(body),
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{load.address}{METHOD}",
        ])  # fmt: skip
    rate, counts = FINISHED.search(output), SUCCEEDED.search(output)
    if not rate or not counts or counts.groups() != (str(requests), "0", "0"):
        raise BenchmarkBroken(f"h2load did not get its answers:\n{output}")
    return float(rate[1])


def write_body(load: Load, path: Path) -> Path:
    """The request as gRPC frames it: not compressed, its length, itself."""
    message = load.request().SerializeToString()
    path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return path


async def _run(line: Sequence[str]) -> str:
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode(errors="replace")
