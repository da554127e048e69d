"""What loads teach the scheduler that leads, and the one that leads next."""

import asyncio
import json

import pytest
from prometheus_client import REGISTRY

from mesh.errors import Unreachable
from mesh.state.learnt import Notebook, Subject
from policy.rates import Quantity, Rate
from tests.services.scheduler.conftest import WAIT_S, Bench
from tests.services.scheduler.fake_worker import Served


async def load_in(bench: Bench, served: Served, seconds: float) -> None:
    """A request has the model loaded, which takes so long; then the request ends, and the replica goes."""
    loads, unloads = len(served.fake.loads), len(served.fake.unloads)
    served.fake.go.clear()
    assigned = bench.assign()
    reading = asyncio.create_task(assigned.placed())
    await bench.asked(served, lambda: len(served.fake.loads) > loads)
    bench.turn(seconds)
    served.fake.go.set()
    await reading
    await assigned.close()
    await bench.idle()
    bench.turn(60.0)
    await bench.asked(served, lambda: len(served.fake.unloads) > unloads)
    await bench.shown(lambda facts: not _replicas(bench))


def _replicas(bench: Bench) -> int:
    worker = bench.mirror.facts.members["worker/w1"].worker
    return len(worker.replicas) if worker else 0


async def written(bench: Bench) -> dict[Rate, float]:
    """Seconds a piece, as they stand in Redis; waits until any do."""
    async with asyncio.timeout(WAIT_S):
        while not (entries := await Notebook(bench.state).read(Subject.RATES)):  # noqa: ASYNC110  no event is written
            await asyncio.sleep(0.01)
    return {Rate(Quantity(n[0]), *n[1:]): json.loads(b)["mean_s"] for n, b in _named(entries)}


def _named(entries: dict[str, str]) -> list[tuple[list[str], str]]:
    return [(json.loads(name), body) for name, body in entries.items()]


def counted(name: str) -> float:
    """Of loads from disk."""
    return REGISTRY.get_sample_value(name, {"tier": "disk"}) or 0.0


async def test_a_load_that_took_long_is_compared_with_what_was_thought_and_learnt_from(bench: Bench) -> None:
    served = await bench.worker()
    before = {name: counted(f"whimbrel_load_{name}_seconds_sum") for name in ("predicted", "actual", "error")}
    await load_in(bench, served, 40.0)
    after = {name: counted(f"whimbrel_load_{name}_seconds_sum") - one for name, one in before.items()}
    assert after["actual"] == pytest.approx(40.0)  # sums grow from test to test, and round
    assert 0 < after["predicted"] < 1
    assert after["error"] == pytest.approx(40.0 - after["predicted"])
    rates = await written(bench)
    assert rates[Rate(Quantity.INIT, "n1", "LlamaForCausalLM")] > 1  # ten bytes cannot have been what took so long


async def test_the_next_leader_begins_with_what_this_one_has_learnt(bench: Bench) -> None:
    served = await bench.worker()
    for _ in range(3):
        await load_in(bench, served, 40.0)
    await written(bench)
    await bench.resign()
    await bench.lead()
    before = counted("whimbrel_load_predicted_seconds_sum")
    await load_in(bench, served, 40.0)
    assert counted("whimbrel_load_predicted_seconds_sum") - before > 1  # nobody who has learnt nothing thinks so


async def test_a_load_that_fails_teaches_nothing(bench: Bench) -> None:
    served = await bench.worker()
    served.fake.fails = Unreachable("it does not work")
    before = counted("whimbrel_load_actual_seconds_count")
    reading = asyncio.create_task(bench.assign().placed())
    await bench.asked(served, lambda: bool(served.fake.loads))
    await bench.lull()
    assert counted("whimbrel_load_actual_seconds_count") == before
    reading.cancel()
    await asyncio.wait([reading])
