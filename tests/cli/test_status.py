"""whimbrel status: tables of members, replicas and tiers, once or as they change."""

import asyncio
import signal

from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2 as words

from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import CHECKPOINT, Fakes, model

WORKER = pb.Member(
    kind="worker",
    id="worker-1",
    node="shore",
    address="127.0.0.1:4001",
    fence=7,
    worker=pb.WorkerStatus(
        device="host",
        memory_bytes=8 << 30,
        memory_used_bytes=1 << 30,
        replicas=[
            pb.WorkerReplica(
                model="curlew",
                state=pb.REPLICA_STATE_READY,
                running=3,
                waiting=2,
                bytes=1 << 30,
                checkpoint=CHECKPOINT.digest,
                numerics=words.NUMERICS_LEVEL_BATCH_INVARIANT,
                numerics_fingerprint="0123456789abcdef" * 2,
                runner=words.RUNNER_KIND_OPAQUE,
            )
        ],
    ),
)
STORE = pb.Member(
    kind="store",
    id="store-1",
    node="shore",
    address="127.0.0.1:4002",
    store=pb.StoreStatus(
        disk_used_bytes=3 << 20,
        dram_capacity_bytes=2 << 30,
        dram_used_bytes=3 << 20,
        checkpoints=[pb.StoredCheckpoint(checkpoint=CHECKPOINT.digest, bytes=3 << 20, tier=words.TIER_DRAM)],
    ),
)


async def test_status_shows_members_replicas_and_tiers(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.cluster.members = [STORE, WORKER]
    fakes.gateway.models = [model("curlew"), model("godwit")]
    ended = await whimbrel.run("status")
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["worker", "worker-1", "shore", "127.0.0.1:4001", "7"] in rows
    runs = (
        f"worker-1 host 1.0 GiB of 8.0 GiB curlew {CHECKPOINT.digest[:12]} opaque ready 3 2 1.0 GiB "
        "batch_invariant 01234567"
    )
    assert runs.split() in rows
    held = f"store-1 3.0 MiB 3.0 MiB of 2.0 GiB {CHECKPOINT.digest[:12]} curlew, godwit 3.0 MiB dram"
    assert held.split() in rows


async def test_status_shows_what_is_in_part_where_and_what_was_damaged(fakes: Fakes, whimbrel: Whimbrel) -> None:
    part = pb.StoredCheckpoint(
        checkpoint=CHECKPOINT.digest, bytes=100, tier=words.TIER_ORIGIN, disk_bytes=40, dram_bytes=10
    )
    full = pb.StoreStatus(disk_used_bytes=1 << 30, disk_capacity_bytes=4 << 30, corrupt_units=7, checkpoints=[part])
    fakes.cluster.members = [pb.Member(kind="store", id="store-1", store=full)]
    fakes.gateway.models = [model("curlew", previous_checkpoint="cd" * 32)]
    ended = await whimbrel.run("status")
    rows = [line.split() for line in ended.out.splitlines()]
    held = f"store-1 1.0 GiB of 4.0 GiB 0 B of 0 B {CHECKPOINT.digest[:12]} curlew 100 B disk 40 %, dram 10 % 7"
    assert held.split() in rows


async def test_watch_shows_the_state_again_when_a_member_goes(fakes: Fakes, whimbrel: Whimbrel) -> None:
    process = await whimbrel.start("status", "--watch")
    assert process.stdout
    for member in (STORE, WORKER):
        fakes.cluster.changes.put_nowait(pb.ClusterServiceWatchResponse(type=pb.EVENT_TYPE_EXISTING, member=member))
    fakes.cluster.changes.put_nowait(pb.ClusterServiceWatchResponse(type=pb.EVENT_TYPE_BOOKMARK))
    async with asyncio.timeout(60):
        first = await process.stdout.readuntil(b"dram")
    assert b"worker-1" in first
    fakes.cluster.changes.put_nowait(pb.ClusterServiceWatchResponse(type=pb.EVENT_TYPE_DELETED, member=WORKER))
    async with asyncio.timeout(60):
        second = await process.stdout.readuntil(b"dram")
    assert b"worker-1" not in second
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0


async def test_status_shows_what_an_adapter_is_on(fakes: Fakes, whimbrel: Whimbrel) -> None:
    base, lone = "ab" * 32, "cd" * 32
    replicas = [
        pb.WorkerReplica(model="curlew", checkpoint=base, state=pb.REPLICA_STATE_READY),
        pb.WorkerReplica(model="shy", checkpoint="12" * 32, state=pb.REPLICA_STATE_READY, base=base, beside="curlew"),
        pb.WorkerReplica(checkpoint=lone, state=pb.REPLICA_STATE_READY),
        pb.WorkerReplica(model="bold", checkpoint="34" * 32, state=pb.REPLICA_STATE_READY, base=lone),
    ]
    status = pb.WorkerStatus(device="host", memory_bytes=8 << 30, replicas=replicas)
    fakes.cluster.members = [pb.Member(kind="worker", id="w", node="n", address="w:1", worker=status)]
    out = (await whimbrel.run("status")).out
    for shown in ("curlew", "shy (on curlew)", "(base)", f"bold (on {lone[:12]})"):
        assert f" {shown} " in out
