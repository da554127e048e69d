"""Observing, deciding, acting: requests over a real socket, workers at the edge, a clock that the test turns."""

import asyncio
from dataclasses import replace

import pytest
from whimbrel.inference.v1 import inference_pb2 as words

from mesh.errors import DataLoss, InvalidRequest, MeshError, NoRoom, NotFound, Unreachable
from mesh.facts import Kind, Member, NumericsLevel, ReplicaState, Tier, WorkerFacts
from mesh.requests import LoadProgress, Phase, Placement, Progress, StartKind, StartTimes
from mesh.state.leases import Membership
from tests.services.scheduler.conftest import Assigned, Bench, entry
from tests.services.scheduler.fake_worker import SIZE, Unloaded, of_model

HALF = Progress(Phase.LOADING, load=LoadProgress(Tier.DISK, 5, 10))
ALL = Progress(Phase.LOADING, load=LoadProgress(Tier.DISK, 10, 10))


async def error_of(assigned: Assigned) -> MeshError:
    """How an Assign ends that gets no place."""
    with pytest.raises(MeshError) as caught:
        await assigned.placed()
    return caught.value


async def test_a_cold_model_is_loaded_and_the_request_placed(bench: Bench) -> None:
    one = await bench.worker(slots=8)
    assigned = bench.assign()
    placement = await assigned.placed()
    fence = bench.fence("w1")
    assert placement == Placement("w1", one.address, fence, "m@1", StartKind.DISK, StartTimes(0.0, 0.0))
    (load,) = one.fake.loads
    assert (load.model, load.digest, load.store_address) == ("m", "m@1", "store:1")
    leader = bench.mirror.facts.leader
    assert leader
    assert load.fence == leader.fence


async def test_a_load_names_the_models_numerics_level(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=8)
    await bench.model("exact", digest="m@1", numerics=NumericsLevel.BATCH_INVARIANT)
    await bench.assign("exact").placed()
    await bench.assign().placed()
    levels = {load.model: load.numerics for load in one.fake.loads}
    assert levels == {"exact": words.NUMERICS_LEVEL_BATCH_INVARIANT, "m": words.NUMERICS_LEVEL_UNSPECIFIED}


async def test_requests_at_one_moment_cause_one_load_and_all_hear_of_its_progress(bench: Bench) -> None:
    one = await bench.worker(slots=8)
    one.fake.go.clear()
    many = [bench.assign() for _ in range(3)]
    for assigned in many:
        await assigned.told(lambda progress: progress == HALF)
    one.fake.go.set()
    placements = [await assigned.placed() for assigned in many]
    assert {placement.worker_id for placement in placements} == {"w1"}
    assert all(assigned.progress[-1] == ALL for assigned in many)
    assert len(one.fake.loads) == 1


async def test_one_that_comes_during_a_load_joins_it(bench: Bench) -> None:
    one = await bench.worker(slots=8)
    one.fake.go.clear()
    first = bench.assign()
    await first.told(lambda progress: progress == HALF)
    late = bench.assign()
    assert await late.told(lambda progress: True) == HALF
    one.fake.go.set()
    assert (await first.placed()).start_kind is StartKind.DISK
    assert (await late.placed()).start_kind is StartKind.DISK
    assert len(one.fake.loads) == 1


async def test_a_load_too_quick_for_progress_is_a_cold_start_all_the_same(bench: Bench) -> None:
    one = await bench.worker()
    one.fake.tells = False
    assert (await bench.assign().placed()).start_kind is StartKind.DISK
    assert (await bench.assign().placed()).start_kind is StartKind.WARM


async def test_the_times_of_a_start_are_its_wait_and_its_load(bench: Bench) -> None:
    one = await bench.worker(slots=8)
    one.fake.go.clear()
    first = bench.assign()
    await first.told(lambda progress: progress == HALF)
    bench.turn(3.0)
    late = bench.assign()
    await late.told(lambda progress: True)
    bench.turn(2.0)
    one.fake.go.set()
    assert (await first.placed()).times == StartTimes(queue_s=0.0, load_s=5.0)
    assert (await late.placed()).times == StartTimes(queue_s=0.0, load_s=2.0)


async def test_a_place_is_held_until_its_stream_is_closed(bench: Bench) -> None:
    await bench.worker(slots=1)
    first, second = bench.assign(), bench.assign()
    await first.placed()
    assert await second.told(lambda progress: True) == Progress(Phase.QUEUED, position=0)
    await first.close()
    assert (await second.placed()).start_kind is StartKind.WARM


async def test_a_client_that_breaks_off_while_it_waits_leaves_the_queue(bench: Bench) -> None:
    await bench.worker(slots=1)
    holder, second, third = bench.assign(), bench.assign(), bench.assign()
    await holder.placed()
    await second.told(lambda progress: progress.position == 0)
    await third.told(lambda progress: progress.position == 1)
    await second.close()
    await third.told(lambda progress: progress.position == 0)
    await holder.close()
    await third.placed()


async def test_a_load_that_finds_wrong_bytes_fails_those_who_wait_and_nobody_after(bench: Bench) -> None:
    one = await bench.worker(slots=8)
    one.fake.go.clear()
    one.fake.fails = DataLoss("unit 3 is not what its hash says", metadata={"unit": "3"})
    many = [bench.assign() for _ in range(2)]
    for assigned in many:
        await assigned.told(lambda progress: progress == HALF)
    one.fake.go.set()
    for assigned in many:
        error = await error_of(assigned)
        assert isinstance(error, DataLoss)
        assert (error.message, error.metadata) == (one.fake.fails.message, {"unit": "3"})
    one.fake.fails = None
    await bench.assign().placed()


async def test_a_worker_that_cannot_be_reached_costs_a_load_elsewhere(bench: Bench) -> None:
    facts = WorkerFacts("host", 10 * SIZE, 2, 2)
    async with Membership(bench.state, Member(Kind.WORKER, "w0", "n1", "127.0.0.1:1", worker=facts), lease_s=60.0):
        await bench.shown(lambda seen: "worker/w0" in seen.members)
        await bench.worker("w1")
        assert (await bench.assign().placed()).worker_id == "w1"


async def test_a_worker_that_dies_while_it_loads_costs_a_load_elsewhere_though_its_lease_has_not_ended(
    bench: Bench,
) -> None:
    dying = await bench.worker("w1", memory=10 * SIZE)
    dying.fake.go.clear()
    assigned = bench.assign()
    await assigned.told(lambda progress: progress == HALF)
    well = await bench.worker("w2")
    await dying.crash()
    assert (await assigned.placed()).worker_id == "w2"
    assert len(well.fake.loads) == 1


async def test_a_worker_with_less_room_than_it_said_costs_a_load_elsewhere(bench: Bench) -> None:
    full, free = await bench.worker("w1", memory=10 * SIZE), await bench.worker("w2")
    full.fake.fails = NoRoom("no device memory", reason="NO_DEVICE_MEMORY")
    assert (await bench.assign().placed()).worker_id == "w2"
    assert (len(full.fake.loads), len(free.fake.loads)) == (1, 1)


async def test_one_whose_load_failed_waits_in_the_queue_again_until_the_next(bench: Bench) -> None:
    one = await bench.worker()
    one.fake.go.clear()
    one.fake.fails = Unreachable("short of breath")
    assigned = bench.assign()
    await assigned.told(lambda progress: progress == HALF)
    one.fake.go.set()
    assert await assigned.told(lambda progress: True) == Progress(Phase.QUEUED, position=0)
    one.fake.fails = None
    bench.turn(5.0)
    assert (await assigned.placed()).times == StartTimes(queue_s=5.0, load_s=0.0)


async def test_an_idle_replica_goes_at_the_end_of_its_keep_alive(bench: Bench) -> None:
    one = await bench.worker()
    assigned = bench.assign()
    await assigned.placed()
    await assigned.close()
    await bench.idle()
    for _ in range(7):
        bench.turn(10.0)
        await bench.lull()  # the loop looks; it must not act before the 60th second
    await bench.asked(one, lambda: bool(one.fake.unloads))
    assert one.fake.unloads == [Unloaded("m", 60.0)]
    await bench.shown(lambda facts: _states(facts.members["worker/w1"]) == [])


async def test_a_request_renews_the_keep_alive_though_no_facts_ever_showed_it(bench: Bench) -> None:
    """It was over before the worker's next report."""
    one = await bench.worker()
    first = bench.assign()
    await first.placed()
    await first.close()
    await bench.idle()
    bench.turn(50.0)
    brief = bench.assign()
    await brief.placed()
    await brief.close()
    await bench.idle()
    bench.turn(30.0)
    await bench.lull()
    bench.turn(30.0)
    await bench.asked(one, lambda: bool(one.fake.unloads))
    assert one.fake.unloads == [Unloaded("m", 110.0)]


async def test_a_held_place_keeps_a_replica_though_its_worker_reports_nothing(bench: Bench) -> None:
    one = await bench.worker()
    assigned = bench.assign()
    await assigned.placed()
    bench.turn(1000.0)
    await bench.lull()
    assert one.fake.unloads == []
    await assigned.close()
    await bench.idle()
    bench.turn(60.0)
    await bench.asked(one, lambda: bool(one.fake.unloads))
    assert one.fake.unloads == [Unloaded("m", 1060.0)]


async def test_a_keep_alive_of_zero_unloads_as_soon_as_the_request_ends(bench: Bench) -> None:
    one = await bench.worker()
    await bench.model("n", keep_alive_s=0.0)
    assigned = bench.assign("n")
    await assigned.placed()
    assert one.fake.unloads == []
    await assigned.close()
    await bench.asked(one, lambda: bool(one.fake.unloads))
    assert of_model(one.fake.unloads, "n") == [0.0]


async def test_a_deleted_models_replica_goes_and_its_name_is_unknown(bench: Bench) -> None:
    one = await bench.worker()
    assigned = bench.assign()
    await assigned.placed()
    await assigned.close()
    await bench.catalogue.remove("m")
    await bench.asked(one, lambda: bool(one.fake.unloads))
    error = await error_of(bench.assign())
    assert isinstance(error, NotFound)
    assert error.reason == "UNKNOWN_MODEL"


async def test_a_model_with_a_new_checkpoint_is_loaded_anew_for_the_next_request(bench: Bench) -> None:
    one = await bench.worker()
    first = bench.assign()
    await first.placed()
    await bench.store_more("m@2")
    current = bench.mirror.facts.models["m"]
    await bench.catalogue.replace(replace(entry("m", digest="m@2"), revision=current.revision))
    waiting = bench.assign()
    await waiting.told(lambda progress: True)
    await first.close()
    await waiting.placed()
    assert [load.digest for load in one.fake.loads] == ["m@1", "m@2"]


async def test_an_idle_replica_makes_room_for_another_model(bench: Bench) -> None:
    one = await bench.worker()
    await bench.model("n")
    first = bench.assign("m")
    await first.placed()
    second = bench.assign("n")
    await second.told(lambda progress: True)
    assert one.fake.unloads == []
    await first.close()
    assert (await second.placed()).start_kind is StartKind.DISK
    assert of_model(one.fake.unloads, "m") == [0.0]


async def test_an_unload_that_fails_is_not_repeated_until_the_worker_is_trusted_again(bench: Bench) -> None:
    one = await bench.worker()
    assigned = bench.assign()
    await assigned.placed()
    await assigned.close()
    await bench.idle()
    one.fake.fails = Unreachable("half dead")
    bench.turn(60.0)
    await bench.asked(one, lambda: bool(one.fake.unloads))
    await bench.lull()
    assert one.fake.unloads == [Unloaded("m", 60.0)]
    one.fake.fails = None
    bench.turn(5.0)
    await bench.asked(one, lambda: len(one.fake.unloads) > 1)
    assert one.fake.unloads == [Unloaded("m", 60.0), Unloaded("m", 65.0)]


async def test_nobody_waits_longer_than_the_hold(bench: Bench) -> None:
    one = await bench.worker()
    one.fake.go.clear()
    assigned = bench.assign()
    await assigned.told(lambda progress: progress == HALF)
    bench.turn(120.0)
    error = await error_of(assigned)
    assert isinstance(error, NoRoom)
    assert (error.reason, error.metadata) == ("HELD_TOO_LONG", {"model": "m"})
    assert error.retry_after_s is not None


async def test_more_than_may_wait_are_told_to_come_back(bench: Bench) -> None:
    one = await bench.worker()
    one.fake.go.clear()
    for _ in range(3):
        await bench.assign().told(lambda progress: True)
    error = await error_of(bench.assign())
    assert isinstance(error, NoRoom)
    assert error.reason == "QUEUE_FULL"
    assert error.retry_after_s is not None


async def test_a_model_too_large_for_every_worker_is_refused_without_a_hint_to_retry(bench: Bench) -> None:
    await bench.worker(memory=SIZE - 1)
    error = await error_of(bench.assign())
    assert isinstance(error, NoRoom)
    assert (error.reason, error.retry_after_s) == ("NO_WORKER_LARGE_ENOUGH", None)


async def test_a_model_that_no_store_holds_is_unavailable(bench: Bench) -> None:
    await bench.worker()
    await bench.model("lost", digest="nowhere")
    error = await error_of(bench.assign("lost"))
    assert isinstance(error, Unreachable)
    assert error.reason == "CHECKPOINT_UNREACHABLE"


async def test_an_excluded_worker_is_avoided(bench: Bench) -> None:
    await bench.worker("w1", memory=10 * SIZE)
    await bench.worker("w2")
    assert (await bench.assign("m", bench.fence("w1")).placed()).worker_id == "w2"


async def test_an_unknown_model_is_not_found(bench: Bench) -> None:
    error = await error_of(bench.assign("nobody"))
    assert isinstance(error, NotFound)
    assert (error.reason, error.metadata) == ("UNKNOWN_MODEL", {"model": "nobody"})


async def test_a_model_deployed_a_moment_later_is_waited_for(bench: Bench) -> None:
    await bench.worker()
    assigned = bench.assign("n")
    placing = asyncio.create_task(assigned.placed())
    await asyncio.sleep(0)
    await bench.catalogue.add(entry("n"))
    assert (await placing).worker_id == "w1"


async def test_a_request_without_a_model_is_invalid(bench: Bench) -> None:
    error = await error_of(bench.assign(""))
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.violations] == ["model"]


async def test_facts_that_say_ready_before_the_load_has_ended_place_nobody(bench: Bench) -> None:
    """Else its start would look warm."""
    one = await bench.worker()
    one.fake.go.clear()
    assigned = bench.assign()
    await assigned.told(lambda progress: progress == HALF)
    one.fake.show("m", ReplicaState.READY)
    await bench.shown(lambda facts: _states(facts.members["worker/w1"]) == [ReplicaState.READY])
    await bench.lull()
    assert not bench.scheduler.room.placed
    one.fake.go.set()
    assert (await assigned.placed()).start_kind is StartKind.DISK


def _states(member: Member) -> list[ReplicaState]:
    assert member.worker
    return [replica.state for replica in member.worker.replicas]
