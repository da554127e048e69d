"""A whole cluster under the launcher: real processes, a real Valkey, real sockets."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.cluster import ClusterOptions, LocalCluster, programs
from mesh.errors import NotFound, Unreachable, Unsuitable
from mesh.facts import Kind
from tests.cli.gone import below, until_gone

QUICK = {"WHIMBREL_DRAIN_S": "0", "OMP_NUM_THREADS": "1"}
LAUNCHER = """
import asyncio, sys
from pathlib import Path
from cli.cluster import ClusterOptions, LocalCluster

async def main():
    async with LocalCluster(ClusterOptions(Path(sys.argv[1]), workers=1)):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One of each process, on free ports."""
    async with LocalCluster(ClusterOptions(tmp_path, workers=1, settings=QUICK)) as running:
        yield running


async def test_every_process_joins_and_none_outlives_the_cluster(tmp_path: Path) -> None:
    before = below(os.getpid())
    async with LocalCluster(ClusterOptions(tmp_path, workers=2, settings=QUICK)) as running:
        async with running.client() as client:
            members = {member.id for member in await client.cluster()}
        started = below(os.getpid()) - before
    assert members == {"scheduler-1", "store-1", "gateway-1", "worker-1", "worker-2"}
    assert {process.pid for process in running.processes} < started  # Valkey is there too
    assert [process.ended.result() for process in running.processes] == [0] * 5
    assert not started & below(os.getpid())


async def test_a_killed_worker_is_noticed_and_comes_back_under_its_name(cluster: LocalCluster) -> None:
    worker = cluster.process("worker-1")
    os.kill(worker.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        gone = await anext(cluster.unexpected_exits())
    assert gone is worker
    assert gone.ended.result() == -signal.SIGKILL
    again = await cluster.restart("worker-1")
    assert again.pid != worker.pid
    async with cluster.client() as client:
        members = {member.id: member.address for member in await client.cluster()}
    assert members["worker-1"] == again.address.result()


async def test_a_restarted_gateway_keeps_its_address(cluster: LocalCluster) -> None:
    address = cluster.gateway_address
    await cluster.kill("gateway-1")
    await cluster.restart("gateway-1")
    assert cluster.gateway_address == address
    async with cluster.client() as client:
        assert await client.list() == ()


async def test_no_process_outlives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    launcher = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LAUNCHER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert launcher.stdout
    assert await launcher.stdout.readline() == b"up\n"
    started = below(launcher.pid)
    assert len(started) >= 5
    launcher.kill()
    await launcher.communicate()
    await asyncio.gather(*(until_gone(pid, within_s=60) for pid in started))


async def test_a_process_that_dies_at_its_start_ends_the_others_and_says_why(tmp_path: Path) -> None:
    options = ClusterOptions(tmp_path, workers=1, settings=QUICK, settings_of={"worker-1": {"WHIMBREL_LEASE_S": "0"}})
    before = below(os.getpid())
    with pytest.raises(Unreachable, match="WHIMBREL_LEASE_S") as failed:
        await LocalCluster(options).__aenter__()
    assert failed.value.metadata == {"process": "worker-1"}
    assert below(os.getpid()) <= before


async def test_a_port_in_use_is_named_with_the_option_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unsuitable, match=rf"port {port} .* --gateway-port"):
            await LocalCluster(ClusterOptions(tmp_path, gateway_port=port)).__aenter__()


async def test_a_cluster_refuses_a_second_in_its_directory_and_names_its_processes(cluster: LocalCluster) -> None:
    with pytest.raises(Unsuitable, match="another cluster runs in"):
        await LocalCluster(ClusterOptions(cluster.options.data_dir)).__aenter__()
    with pytest.raises(NotFound, match=r"worker-9.*scheduler-1, store-1, gateway-1, worker-1"):
        await cluster.kill("worker-9")


def test_a_cluster_may_have_no_workers(tmp_path: Path) -> None:
    started = [program.id for program in programs(ClusterOptions(tmp_path, workers=0), "unix:///nowhere")]
    assert started == ["scheduler-1", "store-1", "gateway-1"]


def test_workers_share_the_cores_and_the_nearest_setting_wins(tmp_path: Path) -> None:
    options = ClusterOptions(
        tmp_path,
        workers=2 * len(os.sched_getaffinity(0)),
        settings={"WHIMBREL_LEASE_S": "1"},
        settings_of={Kind.WORKER: {"WHIMBREL_LEASE_S": "2"}, "worker-2": {"WHIMBREL_LEASE_S": "3"}},
    )
    by_id = {program.id: program.settings for program in programs(options, "unix:///nowhere")}
    leases = [by_id[name]["WHIMBREL_LEASE_S"] for name in ("store-1", "worker-1", "worker-2")]
    assert leases == ["1", "2", "3"]
    assert by_id["worker-1"]["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in by_id["store-1"]
