"""A process's life, from outside: a real scheduler is started, explored, told to end, and started wrongly."""

import asyncio
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc import aio
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from mesh.facts import Kind, Member
from mesh.state.connection import State
from mesh.state.leases import Membership
from tests.cluster import ROOT, Started, process

WAIT_S = 60.0
SERVICE = "whimbrel.scheduler.v1.SchedulerService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left."""

    code: int
    out: str
    err: str


async def run(**settings: object) -> Ended:
    """A scheduler that is expected to end by itself."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL_")}
    env |= {f"WHIMBREL_{name.upper()}": str(value) for name, value in settings.items()}
    pipe = asyncio.subprocess.PIPE
    line = (sys.executable, "-m", "services.scheduler")
    child = await asyncio.create_subprocess_exec(*line, cwd=ROOT, env=env, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(WAIT_S):
            out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return Ended(child.returncode or 0, out.decode(), err.decode())


async def exit_code(started: Started) -> int:
    """Waits for the end of a process."""
    async with asyncio.timeout(WAIT_S):
        return await started.process.wait()


async def health(channel: aio.Channel, service: str) -> int:
    """What the health service says of one service."""
    stub = health_pb2_grpc.HealthStub(channel)
    status: int = (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)).status
    return status


async def reflected(channel: aio.Channel, version: str, **request: str) -> reflection_pb2.ServerReflectionResponse:
    """One answer of the reflection service, under either of its names."""
    ask: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = [a async for a in ask(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=WAIT_S)]
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


async def test_a_service_can_be_explored_with_nothing_at_hand() -> None:
    """On its own Redis, which is the default."""
    async with process(Kind.SCHEDULER) as started, aio.insecure_channel(started.address) as channel:
        assert await health(channel, "") == await health(channel, SERVICE) == SERVING
        for version in ("v1", "v1alpha"):
            listed = await reflected(channel, version, list_services="")
            names = {service.name for service in listed.list_services_response.service}
            assert names >= {SERVICE, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"}
            assert f"grpc.reflection.{version}.ServerReflection" in names
            for name in sorted(names - {"grpc.reflection.v1.ServerReflection"}):
                found = await reflected(channel, version, file_containing_symbol=name)
                assert _symbols(found) >= {name}
        channelz = channelz_pb2_grpc.ChannelzStub(channel)
        servers = await channelz.GetServers(channelz_pb2.GetServersRequest(start_server_id=0), timeout=WAIT_S)
        assert len(servers.server) == 1


def _symbols(found: reflection_pb2.ServerReflectionResponse) -> set[str]:
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(f) for f in found.file_descriptor_response.file_descriptor_proto
    ]
    return {f"{file.package}.{service.name}" for file in files for service in file.service}


async def test_at_sigterm_those_who_watch_are_told_before_the_process_ends(redis_url: str, cluster: str) -> None:
    settings = {"redis_url": redis_url, "cluster": cluster, "drain_s": 0.1, "grace_s": 0.5}
    async with process(Kind.SCHEDULER, **settings) as started, aio.insecure_channel(started.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        statuses = aiter(watching)
        async with asyncio.timeout(WAIT_S):
            assert (await anext(statuses)).status == SERVING
            started.process.send_signal(signal.SIGTERM)
            assert (await anext(statuses)).status == NOT_SERVING
        assert await exit_code(started) == 0


async def test_sigint_ends_it_in_peace_and_gives_its_lease_back(state: State) -> None:
    settings = {"redis_url": state.url, "cluster": state.keys.cluster}
    async with process(Kind.SCHEDULER, **settings) as started, aio.insecure_channel(started.address) as channel:
        assert await health(channel, SERVICE) == SERVING
        assert await state.redis.zcard(state.keys.leases) == 1
        started.process.send_signal(signal.SIGINT)
        assert await exit_code(started) == 0
        assert await state.redis.zcard(state.keys.leases) == 0
        assert await state.redis.exists(state.keys.leader) == 0


async def test_its_own_redis_ends_with_it() -> None:
    with tempfile.TemporaryDirectory(prefix="wt-") as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", scratch)
        async with process(Kind.SCHEDULER) as started:
            socket = _socket_in(scratch)
            await started.kill()
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(OSError, match="refused"):
                await _connect_until_refused(socket)


def _socket_in(scratch: str) -> str:
    (socket,) = Path(scratch).glob("whimbrel-redis-*/redis.sock")
    return str(socket)


async def _connect_until_refused(socket: str) -> None:
    while True:
        _, writer = await asyncio.open_unix_connection(socket)
        writer.close()
        await asyncio.sleep(0.01)  # the kernel kills it: no event for a process that is not its parent


async def test_wrong_settings_end_the_start_all_named_at_once() -> None:
    ended = await run(port="70000", lease_s="0", keep_alive_s="-1", max_waiting="0", log_level="loud")
    assert ended.code == 2
    for name in ("PORT", "LEASE_S", "KEEP_ALIVE_S", "MAX_WAITING", "LOG_LEVEL"):
        assert f"WHIMBREL_{name}: " in ended.err
    assert "Traceback" not in ended.err


async def test_a_redis_that_is_not_there_ends_the_start_with_one_clear_line() -> None:
    ended = await run(redis_url="redis://127.0.0.1:1/0")
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith("scheduler: Redis at redis://127.0.0.1:1/0 does not answer")
    assert "WHIMBREL_REDIS_URL" in line


async def test_a_process_whose_name_is_taken_ends_and_says_so(state: State) -> None:
    settings = {"redis_url": state.url, "cluster": state.keys.cluster, "id": "twin", "lease_s": 0.3}
    async with process(Kind.SCHEDULER, **settings) as started:
        other = Member(Kind.SCHEDULER, "twin", "elsewhere", "elsewhere:1")
        async with Membership(state, other, lease_s=60.0):
            assert await exit_code(started) == 1
        assert "another process is now scheduler/twin; this one stops" in started.log.read_text()
        assert "Traceback" not in started.log.read_text()
