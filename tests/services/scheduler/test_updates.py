"""Updates and rollbacks as the scheduler carries them out: who is placed where, what is loaded, what goes."""

import pytest

from mesh.clock import HandClock
from mesh.errors import DataLoss, MeshError, Unsuitable
from mesh.facts import ClusterFacts, ReplicaState, Tier
from mesh.requests import LoadProgress, Phase, Progress, StartKind, Wish
from policy.books import Books
from policy.view import Spot
from services.scheduler.waiting import Loading, WaitingRoom
from tests.services.scheduler.conftest import Bench
from tests.services.scheduler.fake_worker import SIZE, Served, Unloaded


def loads(one: Served) -> list[str]:
    """The versions that a worker was told to load, in order."""
    return [load.digest for load in one.fake.loads]


def held(facts: ClusterFacts) -> set[tuple[str, ReplicaState]]:
    """What the worker says that it has."""
    worker = facts.members["worker/w1"].worker
    return {(replica.digest, replica.state) for replica in worker.replicas} if worker else set()


async def test_the_former_version_answers_until_the_current_one_is_ready_and_then_goes(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=8)
    await bench.store_more("m@2")
    first = bench.assign()
    assert (await first.placed()).digest == "m@1"
    one.fake.go.clear()
    await bench.update("m", "m@2")
    await bench.asked(one, lambda: loads(one) == ["m@1", "m@2"])
    meanwhile = bench.assign()
    placement = await meanwhile.placed()
    assert (placement.digest, placement.start_kind) == ("m@1", StartKind.WARM)
    one.fake.go.set()
    await bench.shown(lambda facts: ("m@2", ReplicaState.READY) in held(facts))
    await bench.lull()
    after = bench.assign()
    assert (await after.placed()).digest == "m@2"
    assert one.fake.unloads == []
    await first.close()
    await bench.lull()
    assert one.fake.unloads == []
    await meanwhile.close()
    await bench.asked(one, lambda: bool(one.fake.unloads))
    assert one.fake.unloads == [Unloaded("m", 0.0, "m@1")]


async def test_without_room_for_both_the_former_finishes_and_those_who_wait_hear_of_the_load(bench: Bench) -> None:
    one = await bench.worker(slots=8)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    await bench.update("m", "m@2")
    waiting = bench.assign()
    assert (await waiting.told(lambda progress: True)).phase is Phase.QUEUED
    await bench.lull()
    assert (loads(one), one.fake.unloads) == (["m@1"], [])
    await first.close()
    placement = await waiting.placed()
    assert (placement.digest, placement.start_kind) == ("m@2", StartKind.DISK)
    assert any(progress.phase is Phase.LOADING for progress in waiting.progress)
    assert one.fake.unloads == [Unloaded("m", 0.0, "m@1")]
    assert loads(one) == ["m@1", "m@2"]


async def test_a_warm_model_stays_warm_through_an_update_though_nobody_asks_it(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    await first.close()
    one.fake.go.clear()
    await bench.update("m", "m@2")
    await bench.asked(one, lambda: loads(one) == ["m@1", "m@2"])
    await bench.lull()  # nobody waits for this load, and it goes on all the same
    one.fake.go.set()
    await bench.shown(lambda facts: held(facts) == {("m@2", ReplicaState.READY)})
    assert (await bench.assign().placed()).start_kind is StartKind.WARM


async def test_a_rollback_in_the_middle_ends_the_load_of_the_version_that_is_no_longer_wanted(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=8)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    one.fake.go.clear()
    await bench.update("m", "m@2")
    await bench.asked(one, lambda: loads(one) == ["m@1", "m@2"])
    await bench.update("m", "m@1")
    await bench.shown(lambda facts: held(facts) == {("m@1", ReplicaState.READY)})
    assert (await bench.assign().placed()).digest == "m@1"
    assert one.fake.unloads == []


async def test_one_who_waits_for_a_version_that_is_replaced_meanwhile_gets_the_newest(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE)
    await bench.store_more("m@2")
    one.fake.go.clear()
    waiting = bench.assign()
    await waiting.told(lambda progress: progress.load is not None)
    await bench.update("m", "m@2")
    await bench.asked(one, lambda: loads(one) == ["m@1", "m@2"])
    one.fake.go.set()
    assert (await waiting.placed()).digest == "m@2"


async def test_a_version_that_cannot_be_loaded_costs_nobody_an_answer_and_is_tried_again_later(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=1)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    one.fake.fails = DataLoss("unit 3 is not what its hash says")
    waiting = bench.assign()
    await waiting.told(lambda progress: True)
    await bench.update("m", "m@2")
    await bench.asked(one, lambda: loads(one) == ["m@1", "m@2"])
    await bench.lull()
    await first.close()
    assert (await waiting.placed()).digest == "m@1"
    one.fake.fails = None
    bench.turn(59.0)
    await bench.lull()
    assert loads(one) == ["m@1", "m@2"]
    bench.turn(1.0)
    await bench.asked(one, lambda: loads(one) == ["m@1", "m@2", "m@2"])
    await waiting.close()
    await bench.shown(lambda facts: held(facts) == {("m@2", ReplicaState.READY)})


async def test_one_that_only_the_current_version_can_answer_hears_why_it_cannot_be_loaded(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=8)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    one.fake.go.clear()
    one.fake.fails = DataLoss("unit 3 is not what its hash says")
    await bench.update("m", "m@2")
    strict = bench.assign(current_only=True)
    await strict.told(lambda progress: progress.load is not None)
    one.fake.go.set()
    with pytest.raises(MeshError) as caught:
        await strict.placed()
    assert caught.value.message == one.fake.fails.message


async def test_an_answer_goes_on_with_the_version_that_began_it_while_that_is_there(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=8)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    await bench.update("m", "m@2")
    await bench.shown(lambda facts: ("m@2", ReplicaState.READY) in held(facts))
    await bench.lull()
    second = bench.assign(digest="m@1")
    assert (await second.placed()).digest == "m@1"
    await first.close()
    await second.close()
    await bench.asked(one, lambda: bool(one.fake.unloads))
    await bench.shown(lambda facts: held(facts) == {("m@2", ReplicaState.READY)})
    with pytest.raises(Unsuitable) as caught:
        await bench.assign(digest="m@1").placed()
    assert caught.value.reason == "VERSION_GONE"


async def test_an_answer_that_has_begun_does_not_end_because_the_next_version_cannot_be_loaded(bench: Bench) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=1)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    one.fake.go.clear()
    one.fake.fails = DataLoss("unit 3 is not what its hash says")
    await bench.update("m", "m@2")
    await bench.asked(one, lambda: loads(one) == ["m@1", "m@2"])
    begun = bench.assign(digest="m@1")
    strict = bench.assign(digest="m@2")
    await begun.told(lambda progress: True)
    await strict.told(lambda progress: True)
    one.fake.go.set()
    with pytest.raises(DataLoss):
        await strict.placed()
    await first.close()
    assert (await begun.placed()).digest == "m@1"


async def test_a_long_answer_of_the_former_version_does_not_bring_it_back_when_the_current_one_has_gone(
    bench: Bench,
) -> None:
    one = await bench.worker(memory=2 * SIZE, slots=8)
    await bench.store_more("m@2")
    long = bench.assign()
    await long.placed()
    await bench.update("m", "m@2")
    await bench.shown(lambda facts: ("m@2", ReplicaState.READY) in held(facts))
    await bench.lull()
    bench.turn(60.0)
    await bench.shown(lambda facts: held(facts) == {("m@1", ReplicaState.READY)})
    await bench.lull()
    assert loads(one) == ["m@1", "m@2"]  # nobody asks for it
    assert (await bench.assign().placed()).digest == "m@2"
    await long.close()
    await bench.asked(one, lambda: one.fake.unloads[-1].digest == "m@1")


async def test_one_whom_the_former_version_answers_in_the_end_had_a_warm_start(bench: Bench) -> None:
    """It has waited in vain for the current version, whose load goes on."""
    one = await bench.worker(memory=2 * SIZE, slots=1)
    await bench.store_more("m@2")
    first = bench.assign()
    await first.placed()
    one.fake.go.clear()
    await bench.update("m", "m@2")
    waiting = bench.assign()
    await waiting.told(lambda progress: progress.load is not None)
    bench.turn(3.0)
    await first.close()
    placement = await waiting.placed()
    assert (placement.digest, placement.start_kind) == ("m@1", StartKind.WARM)
    assert (placement.times.queue_s, placement.times.load_s) == (3.0, 0.0)


async def test_one_that_has_not_been_looked_at_yet_hears_of_no_load() -> None:
    room = WaitingRoom(HandClock(0.0))
    room.open(Books())
    load = Loading(Spot("w1", "m", "m@2"), LoadProgress(Tier.DISK, 5, 10), 0.0)
    with room.ticket(Wish("r", "m")) as ticket:
        room.loading(load)
        assert ticket.events.empty()
        room.tell()
        assert ticket.events.get_nowait() == Progress(Phase.LOADING, load=load.progress)
