"""One service's process under the launcher, with a real scheduler."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.process import Program, ServiceProcess
from mesh.clients.channel import connect
from mesh.errors import Unreachable
from mesh.facts import Kind
from mesh.state.embedded import embedded_redis
from tests.cli.gone import until_gone

LAUNCHER = """
import asyncio, sys
from pathlib import Path
from cli.process import Program, ServiceProcess
from mesh.facts import Kind
from mesh.state.embedded import embedded_redis

async def main():
    async with embedded_redis() as url:
        settings = {"WHIMBREL_REDIS_URL": url, "WHIMBREL_ID": "scheduler-1"}
        process = ServiceProcess(Program(Kind.SCHEDULER, "scheduler-1", settings), Path(sys.argv[1]))
        await process.start()
        await process.address
        print(process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def redis_url() -> AsyncIterator[str]:
    """A server of the test's own."""
    async with embedded_redis() as url:
        yield url


def _scheduler(redis_url: str, log: Path, **settings: str) -> ServiceProcess:
    shared = {"WHIMBREL_REDIS_URL": redis_url, "WHIMBREL_ID": "scheduler-1", "WHIMBREL_DRAIN_S": "0"}
    return ServiceProcess(Program(Kind.SCHEDULER, "scheduler-1", {**shared, **settings}), log)


async def _health(process: ServiceProcess) -> health_pb2.HealthCheckResponse:
    """What it answers once it serves; by then it handles SIGTERM too."""
    async with asyncio.timeout(60):
        address = await process.address
    async with connect(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)


async def test_it_serves_at_the_address_that_it_prints_and_ends_when_told(redis_url: str, tmp_path: Path) -> None:
    process = _scheduler(redis_url, tmp_path / "log")
    await process.start()
    assert (await _health(process)).status == health_pb2.HealthCheckResponse.SERVING
    await process.end(grace_s=60)
    assert process.ended.result() == 0
    assert "joined" in process.tail()


async def test_ctrl_c_in_the_launchers_terminal_does_not_reach_it(redis_url: str, tmp_path: Path) -> None:
    process = _scheduler(redis_url, tmp_path / "log")
    await process.start()
    await _health(process)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    await process.end(grace_s=60)


async def test_one_that_dies_at_its_start_says_why(redis_url: str, tmp_path: Path) -> None:
    process = _scheduler(redis_url, tmp_path / "log", WHIMBREL_LEASE_S="-1")
    await process.start()
    with pytest.raises(Unreachable, match="WHIMBREL_LEASE_S") as failed:
        await process.address
    assert "scheduler-1 ended with exit code 2 before it served" in failed.value.message
    assert str(process.log) in failed.value.message
    await process.end(grace_s=1)


async def test_one_that_ignores_sigterm_is_killed_after_the_grace(redis_url: str, tmp_path: Path) -> None:
    process = _scheduler(redis_url, tmp_path / "log")
    await process.start()
    await _health(process)
    os.kill(process.pid, signal.SIGSTOP)  # it can act on no signal but SIGKILL now
    await process.end(grace_s=0.2)
    assert process.ended.result() == -signal.SIGKILL


async def test_it_dies_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    launcher = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LAUNCHER, str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert launcher.stdout
    pid = int(await launcher.stdout.readline())
    os.kill(pid, 0)
    launcher.kill()
    await until_gone(pid, within_s=60)
    await launcher.communicate()
