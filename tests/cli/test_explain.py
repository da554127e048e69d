"""whimbrel explain: why requests wait, every alternative with its costs, past loads, learnt rates."""

from whimbrel.inference.v1 import explanation_pb2 as pb
from whimbrel.inference.v1 import inference_pb2

from mesh.clients.wire import duration
from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import CHECKPOINT, Fakes

LOAD = pb.Alternative(
    way=pb.WAY_EVICT,
    worker_id="worker-2",
    node="shore",
    estimate=pb.StartEstimate(
        mean=duration(2.5), p90=duration(4.0), io_queue=duration(0.5), disk=duration(1.8), init=duration(0.2)
    ),
    chosen=True,
    evicts=["godwit"],
)
TOO_SMALL = pb.Alternative(way=pb.WAY_LOAD, worker_id="worker-3", node="marsh", obstacle="it is too small")
NEXT = pb.HeldRequest(why="an idle replica makes room on worker-2", alternatives=[LOAD, TOO_SMALL])
HELD = pb.HeldRequest(
    number="7",
    waited=duration(1.5),
    service_class=inference_pb2.ServiceClass(tenant="gulls", priority=inference_pb2.PRIORITY_HIGH),
    position=2,
    why="it waits for a slot",
    alternatives=[pb.Alternative(way=pb.WAY_WAIT, worker_id="worker-1", node="shore")],
)
EXPLANATION = pb.Explanation(
    model="curlew",
    held=[HELD],
    waiting=3,
    next=NEXT,
    loads=[
        pb.PastLoad(
            worker_id="worker-1",
            checkpoint=CHECKPOINT.digest,
            tier=inference_pb2.TIER_DISK,
            predicted=pb.StartEstimate(mean=duration(2.0), p90=duration(3.0)),
            actual=duration(2.2),
        )
    ],
    rates=[
        pb.LearntRate(quantity="disk", node="shore", mean_s=1 / (2 << 30), spread=0.25),
        pb.LearntRate(quantity="held", of="curlew", mean_s=12.0, spread=1.0),
    ],
)


async def test_explain_shows_why_each_request_waits_and_what_else_there_is(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.cluster.explanation = EXPLANATION
    ended = await whimbrel.run("explain", "curlew")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert ended.code == 0
    assert lines[0] == "curlew: 3 wait"
    for line in (
        "A request that came now: an idle replica makes room on worker-2",
        "* evict worker-2 shore 2.5 s 4 s others' bytes 500 ms, disk 1.8 s, init 200 ms evicts godwit",
        "load worker-3 marsh ? ? it is too small",
        "Request 7 of gulls (high), after 1.5 s, 2 before it: it waits for a slot",
        "wait worker-1 shore ? ?",
        "... and 2 more",
        f"worker-1 {CHECKPOINT.digest[:12]} disk 2 s 3 s 2.2 s",
        "shore disk 2.0 GiB/s 25%",
        "(cluster) held curlew 12 s 100%",
    ):
        assert line in lines


async def test_a_model_that_is_not_deployed_is_an_error(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("explain", "dodo")
    assert (ended.code, "UNKNOWN_MODEL" in ended.err) == (1, True)
