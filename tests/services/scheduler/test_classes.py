"""Classes of service, at the scheduler's own socket."""

from dataclasses import replace

from prometheus_client import REGISTRY

from mesh.errors import NoRoom
from mesh.facts import Priority
from mesh.requests import Phase, ServiceClass
from mesh.state.connection import State
from tests.services.scheduler.conftest import KNOBS, Assigned, Bench, led
from tests.services.scheduler.fake_worker import SIZE
from tests.services.scheduler.test_loop import error_of


async def queued(bench: Bench, service: ServiceClass, model: str = "m") -> Assigned:
    """A request that waits."""
    assigned = bench.assign(model, service=service)
    await assigned.told(lambda progress: progress.phase is Phase.QUEUED)
    return assigned


async def test_a_slot_goes_to_the_higher_band_though_it_came_later(bench: Bench) -> None:
    await bench.worker(slots=1)
    first = bench.assign()
    await first.placed()
    low = await queued(bench, ServiceClass(priority=Priority.LOW))
    high = await queued(bench, ServiceClass(priority=Priority.HIGH))
    await first.close()
    await high.placed()
    await high.close()
    await low.placed()


async def test_who_has_waited_too_long_for_its_first_token_is_refused_at_that_moment(bench: Bench) -> None:
    await bench.worker(slots=1)
    await bench.assign().placed()
    hasty = await queued(bench, ServiceClass(first_token_s=2.0))
    patient = await queued(bench, ServiceClass(first_token_s=60.0))
    bench.turn(2.0)
    error = await error_of(hasty)
    assert isinstance(error, NoRoom)
    assert (error.reason, error.metadata) == ("DEADLINE_CANNOT_BE_MET", {"model": "m"})
    assert "keep one ready" in error.message
    assert patient.progress[-1].phase is Phase.QUEUED


async def test_who_cannot_have_a_first_token_in_time_is_refused_when_it_comes(bench: Bench) -> None:
    await bench.worker(slots=1)
    for _ in range(8):
        holder = bench.assign()
        await holder.placed()
        bench.turn(10.0)  # so long a place is held, as the scheduler learns
        await holder.close()
        await bench.idle()
    await bench.assign().placed()
    error = await error_of(bench.assign(service=ServiceClass(first_token_s=1.0)))
    assert error.reason == "DEADLINE_CANNOT_BE_MET"
    assert error.retry_after_s is not None
    assert 5.0 < error.retry_after_s < 120.0


async def test_a_busy_replica_makes_way_for_a_higher_band(bench: Bench) -> None:
    one = await bench.worker(memory=SIZE, slots=2)
    await bench.model("n")
    low = bench.assign(service=ServiceClass(priority=Priority.LOW))
    await low.placed()
    high = await queued(bench, ServiceClass(priority=Priority.HIGH), "n")
    later = await queued(bench, ServiceClass(priority=Priority.LOW))  # though a slot is free
    await low.close()
    await high.placed()
    assert [load.model for load in one.fake.loads] == ["m", "n"]
    await later.close()


async def test_a_tenant_with_as_many_requests_as_it_may_have_is_told_which_limit_and_when_to_come_again(
    state: State,
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("whimbrel_refusals_total", {"reason": "TENANT_FULL"}) or 0.0

    before, greedy = counted(), ServiceClass(tenant="greedy")
    async with led(state, replace(KNOBS, tenant_requests=1)) as bench:
        await bench.worker(slots=4)
        first = bench.assign(service=greedy)
        await first.placed()
        error = await error_of(bench.assign(service=greedy))
        assert (type(error), error.reason) == (NoRoom, "TENANT_FULL")
        assert error.metadata == {"model": "m", "tenant": "greedy", "limit": "1"}
        assert error.retry_after_s
        assert counted() == before + 1
        await bench.assign(service=ServiceClass(tenant="modest")).placed()
        await first.close()
        await bench.assign(service=greedy).placed()
