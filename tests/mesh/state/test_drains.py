"""Drains: every mirror hears of them, one that starts later too."""

from mesh.state.connection import State
from mesh.state.drains import Drains, drained_by, node_drain, worker_drain
from mesh.state.mirror import Mirror
from tests.mesh.state.conftest import WAIT_S, member


async def test_a_drain_is_seen_by_all_until_it_is_undone(state: State, mirror: Mirror) -> None:
    drains, names = Drains(state), {worker_drain("w1"), node_drain("n2")}
    for name in names:
        assert await drains.begin(name)
    assert await mirror.until(lambda facts: facts.drains == names, WAIT_S)
    async with Mirror(state).running() as later:
        assert later.facts.drains == names
    assert await drains.end(worker_drain("w1"))
    assert await mirror.until(lambda facts: facts.drains == {node_drain("n2")}, WAIT_S)


async def test_either_may_be_done_twice_and_says_whether_it_was_news(state: State) -> None:
    drains = Drains(state)
    assert not await drains.end("worker/w1")
    assert await drains.begin("worker/w1")
    assert not await drains.begin("worker/w1")
    assert await drains.end("worker/w1")


def test_a_drain_is_about_a_worker_or_all_of_a_node() -> None:
    one = member("w1")
    assert drained_by(worker_drain("w1"), one)
    assert drained_by(node_drain(one.node), one)
    assert not drained_by(worker_drain("w2"), one)
    assert not drained_by(node_drain("w1"), one)
