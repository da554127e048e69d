"""drain and undrain."""

from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import Fakes


async def test_drain_tells_what_is_left_until_nothing_is(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("drain", "--node", "box-7")
    assert (ended.code, ended.out) == (0, "box-7 is empty\n")
    assert ended.err.splitlines() == [
        "no other store has the checkpoint of curlew",
        "box-7: 1 request on 2 replicas left",
    ]
    assert (await whimbrel.run("undrain", "worker-1")).out == "worker-1 takes work again\n"
    drained, undrained = fakes.cluster.requests
    assert (drained.node, drained.worker_id) == ("box-7", "")
    assert (undrained.node, undrained.worker_id) == ("", "worker-1")


async def test_a_drain_names_a_worker_or_a_node_and_not_both(whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("drain", "worker-1", "--node", "box-7")
    assert ended.code == 2
    assert "give either WORKER or --node NODE" in ended.err
