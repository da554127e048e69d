"""A request moves while its client reads: every arrow of the protocol, and what each failure does."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from mesh.facts import Kind
from mesh.moves import SOURCE_ENDED, MoveFailed, Ready, Relocation, Reserved, Stopped
from mesh.requests import FinishReason, Frame, MoveKind
from mesh.state.leases import Membership
from services.gateway.answer import Finished, Started
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import WAIT_S, placement
from tests.services.gateway.moving import MOVE, PART, Stage, stage
from tests.services.gateway.test_answer import EOS, asked, ids
from tests.services.gateway.test_resuming import member

FLIES, OVER = len(ids(" flies")), len(ids(" over"))


async def finished_at_source(on: Stage, seq: int = FLIES, epoch: int = 1) -> None:
    """The source ends the answer with " on", as if nothing had happened, and nobody was told to move it."""
    on.source.say(Frame(on.grant.key, epoch, seq, ids(" on"), FinishReason.LENGTH))
    end = await on.ends()
    assert end.moves == ()
    assert end.placement.worker_id == "w1"


async def test_kv_is_copied_while_the_source_goes_on_and_the_target_ends_the_answer(bench: Bench) -> None:
    on = await stage(bench)
    on.relocate()
    expect = await on.target.expects()
    assert (expect.move_id, expect.kind, expect.request.log) == (PART, MoveKind.KV, ids(" flies"))
    assert (expect.request.key, expect.request.epoch) == (on.grant.key, 1)
    on.target.say(Reserved(PART, 2, 32, ""))
    send = await on.source.sends()
    assert (send.key, send.epoch, send.target_address, send.blocks_there) == (on.grant.key, 1, on.target.address, 2)
    on.source.say(on.frame(on.grant, FLIES, " over"), Stopped(PART, 9, 4096))
    await on.reads(" flies over")
    on.target.say(Ready(PART, 40))
    grant = await on.target.granted()
    assert (grant.epoch, grant.log, grant.move_id) == (2, (*ids(" flies"), *ids(" over")), PART)
    assert on.source.commands.empty()  # it keeps its KV until the target has spoken
    on.target.say(on.frame(grant, FLIES + OVER, " the sea", FinishReason.LENGTH))
    cancel = await on.source.cancelled()
    assert (cancel.key, cancel.epoch) == (on.grant.key, 1)
    end = await on.ends()
    assert on.tokens == (*ids(" flies"), *ids(" over"), *ids(" the sea"))
    (move,) = end.moves
    assert (move.from_worker_id, move.to_worker_id, move.reason, move.kind) == ("w1", "w2", "drain", MoveKind.KV)
    assert (move.tokens, move.exact, end.placement.worker_id) == (FLIES + OVER, False, "w2")
    assert move.gap_s > 0


async def test_its_scheduler_is_told_how_the_move_went(bench: Bench) -> None:
    on = await stage(bench)
    grant = await on.granted()
    on.target.say(on.frame(grant, FLIES + OVER, " the"))
    outcome = await on.scheduler.outcome()
    assert (outcome.move_id, outcome.moved, outcome.kind) == (MOVE, True, MoveKind.KV)
    assert (outcome.tokens, outcome.tokens_there, outcome.bytes_sent) == (
        len(on.grant.prompt) + FLIES + OVER, 32, 4096,
    )  # fmt: skip
    assert 0 < outcome.transfer_s <= outcome.took_s
    assert outcome.gap_s > 0


async def test_tokens_are_computed_in_rounds_until_few_are_left(bench: Bench) -> None:
    on = await stage(bench)
    on.relocate(MoveKind.TOKENS)
    expect = await on.target.expects()
    assert (expect.kind, expect.request.log) == (MoveKind.TOKENS, ids(" flies"))
    many = ids(" over the sea and the hill") * 12
    on.source.say(Frame(on.grant.key, 1, FLIES, many))
    await on.reads(" flies" + " over the sea and the hill" * 12)
    there = len(on.grant.prompt) + FLIES
    on.target.say(Reserved(PART, 0, 0, ""), Ready(PART, there))
    assert (await on.target.expects()).request.log == (*ids(" flies"), *many)
    on.target.say(Ready(PART, there + len(many)))
    grant = await on.target.granted()
    assert grant.log == (*ids(" flies"), *many)
    assert on.source.commands.empty()
    on.source.say(Frame(on.grant.key, 1, FLIES + len(many), ids(" late")))  # of an owner that no longer is
    on.target.say(Frame(grant.key, 2, FLIES + len(many), ids(" on"), FinishReason.LENGTH))
    assert (await on.source.cancelled()).epoch == 1
    (move,) = (await on.ends()).moves
    assert (move.kind, on.tokens) == (MoveKind.TOKENS, (*ids(" flies"), *many, *ids(" on")))


@pytest.mark.parametrize("kind", [MoveKind.KV, MoveKind.TOKENS])
async def test_a_target_without_room_leaves_the_answer_where_it_is(bench: Bench, kind: MoveKind) -> None:
    on = await stage(bench)
    on.relocate(kind)
    await on.target.expects()
    on.target.say(MoveFailed(PART, "NO_ROOM", "has no room"))
    outcome = await on.scheduler.outcome()
    assert (outcome.moved, outcome.failure_reason, outcome.failure) == (False, "NO_ROOM", "has no room")
    assert (await on.source.abandons()).move_id == PART
    assert (await on.target.abandons()).move_id == PART
    await finished_at_source(on)


@pytest.mark.parametrize("reason", ["NOT_MOVABLE", "LAYOUT_MISMATCH"])
async def test_what_cannot_be_copied_is_computed(bench: Bench, reason: str) -> None:
    on = await stage(bench)
    await on.copying()
    on.source.say(MoveFailed(PART, reason, "it cannot"))
    assert (await on.target.abandons()).move_id == PART
    expect = await on.target.expects()
    assert (expect.kind, expect.move_id) == (MoveKind.TOKENS, f"{PART}/tokens")
    on.target.say(Reserved(expect.move_id, 0, 0, ""), Ready(PART, 1), Ready(expect.move_id, len(on.grant.prompt)))
    grant = await on.target.granted()
    assert grant.move_id == expect.move_id
    on.target.say(on.frame(grant, FLIES, " on", FinishReason.LENGTH))
    (move,) = (await on.ends()).moves
    assert move.kind is MoveKind.TOKENS


async def test_why_the_source_sends_no_more_is_the_sources_to_say(bench: Bench) -> None:
    on = await stage(bench)
    await on.copying()
    on.target.say(MoveFailed(PART, SOURCE_ENDED, "it ended"))
    on.source.say(MoveFailed(PART, "LINK_TOO_SLOW", "blocks fill while as many leave"))
    assert (await on.scheduler.outcome()).failure_reason == "LINK_TOO_SLOW"
    await finished_at_source(on, epoch=2)


async def test_an_answer_that_ends_in_its_move_has_ended_though_its_target_hears_of_it_first(bench: Bench) -> None:
    on = await stage(bench)
    await on.copying()
    on.target.say(MoveFailed(PART, SOURCE_ENDED, "it ended"))
    await finished_at_source(on)
    outcome = await on.scheduler.outcome()
    assert outcome.failure_reason == "FINISHED"
    assert "the target has not all of it yet (kv)" in outcome.failure


@pytest.mark.parametrize("begun", [True, False])
async def test_a_source_that_joins_again_has_the_numerics_that_it_had(bench: Bench, *, begun: bool) -> None:
    """Its lease lapses, and the place that the answer has is of the former one: it has begun by then, or begins."""
    on = Stage(bench, await bench.scheduler(), await bench.worker(), await bench.worker())
    who = member("w1", on.source, "f")
    async with Membership(bench.state, who, WAIT_S) as former:
        assert await bench.mirror.until(lambda facts: bool(facts.of_kind(Kind.WORKER)), WAIT_S)
        if begun:
            await on.begin(asked(), former.member.fence)
    async with Membership(bench.state, who, WAIT_S) as joined:
        fence = joined.member.fence
        assert await bench.mirror.until(lambda facts: fence in {m.fence for m in facts.of_kind(Kind.WORKER)}, WAIT_S)
        if not begun:
            await on.begin(asked(), former.member.fence)
        await on.copying("f")
        on.source.say(Stopped(PART, FLIES, 4096))
        on.target.say(Ready(PART, 40))
        on.target.say(on.frame(await on.target.granted(), FLIES, " on", FinishReason.LENGTH))
        assert [move.exact for move in (await on.ends()).moves] == [True]


async def test_what_can_neither_be_copied_nor_computed_stays(bench: Bench) -> None:
    on = await stage(bench)
    await on.copying()
    on.source.say(MoveFailed(PART, "NOT_MOVABLE", "it cannot"))
    await on.target.abandons()
    await on.target.expects()
    on.target.say(MoveFailed(f"{PART}/tokens", "NOT_MOVABLE", "nor that"))
    assert (await on.scheduler.outcome()).failure_reason == "NOT_MOVABLE"
    await finished_at_source(on, epoch=2)


async def test_a_target_that_is_lost_while_the_source_sends_costs_nothing(bench: Bench) -> None:
    on = await stage(bench)
    await on.copying()
    await on.target.crash()
    assert (await on.scheduler.outcome()).failure_reason == "WORKER_LOST"
    assert (await on.source.abandons()).move_id == PART
    assert (await on.source.granted()).log == ids(" flies")
    await finished_at_source(on, epoch=2)


async def test_a_source_that_stops_for_a_move_just_given_up_goes_on(bench: Bench) -> None:
    """What it says of that crosses the end of the move: nobody listens for it any more."""
    on = await stage(bench)
    await on.copying()
    on.target.say(MoveFailed(PART, "GAVE_WAY", "has no room any more"))
    await on.source.abandons()
    on.source.say(on.frame(on.grant, FLIES, " over"), Stopped(PART, 9, 4096))
    again = await on.source.granted()
    assert (again.epoch, again.log) == (2, ids(" flies"))
    on.source.say(on.frame(again, FLIES, " over"))
    await finished_at_source(on, FLIES + OVER, epoch=2)


async def test_a_source_that_stands_still_too_long_is_granted_its_answer_again(bench: Bench) -> None:
    on = await stage(bench)
    await on.stopped()
    await on.source.abandons()
    grant = await on.source.granted()
    assert (grant.key, grant.epoch, grant.log) == (on.grant.key, 2, (*ids(" flies"), *ids(" over")))
    assert (await on.target.abandons()).move_id == PART
    assert (await on.scheduler.outcome()).failure_reason == "STOOD_STILL"
    on.target.say(Ready(PART, 40))  # too late
    await finished_at_source(on, FLIES + OVER, epoch=2)


async def test_a_target_that_is_lost_while_the_source_stands_still_gives_the_answer_back(bench: Bench) -> None:
    on = await stage(bench)
    await on.stopped()
    await on.target.crash()
    await on.source.abandons()
    assert (await on.source.granted()).epoch == 2
    await finished_at_source(on, FLIES + OVER, epoch=2)


async def test_a_source_that_is_lost_while_it_sends_leaves_the_answer_to_the_target(bench: Bench) -> None:
    on = await stage(bench)
    await on.copying()
    await on.source.crash()
    grant = await on.target.granted()
    assert (grant.epoch, grant.log, grant.move_id) == (2, ids(" flies"), PART)
    on.target.say(on.frame(grant, FLIES, " on", FinishReason.LENGTH))
    (move,) = (await on.ends()).moves
    assert (move.kind, move.to_worker_id) == (MoveKind.REBUILT, "w2")
    assert len(on.scheduler.asked) == 1
    outcome = await on.scheduler.outcome()
    assert (outcome.moved, outcome.kind) == (True, MoveKind.REBUILT)
    assert 0 <= outcome.transfer_s <= outcome.took_s


async def test_a_source_that_is_lost_before_there_is_room_is_replaced_as_ever(bench: Bench) -> None:
    on, other = await stage(bench), await bench.worker()
    on.relocate()
    await on.target.expects()
    await on.source.crash()
    await on.target.abandons()
    on.scheduler.answers.put_nowait(placement("w3", other.address, fence=3))
    grant = await other.granted()
    assert grant.log == ids(" flies")
    other.say(on.frame(grant, FLIES, " on", FinishReason.LENGTH))
    (move,) = (await on.ends()).moves
    assert (move.kind, move.to_worker_id) == (MoveKind.REBUILT, "w3")


async def test_a_target_that_is_lost_before_its_first_word_gives_the_answer_back(bench: Bench) -> None:
    on = await stage(bench)
    await on.granted()
    await on.target.crash()
    again = await on.source.granted()
    assert (again.epoch, again.log) == (3, (*ids(" flies"), *ids(" over")))
    assert (await on.scheduler.outcome()).failure_reason == "WORKER_LOST"
    await finished_at_source(on, FLIES + OVER, epoch=3)


async def test_a_target_that_refuses_the_grant_gives_the_answer_back(bench: Bench) -> None:
    on = await stage(bench)
    grant = await on.granted()
    on.target.say(Frame(grant.key, 2, failure_reason="REPLICA_NOT_RESIDENT", failure="not here"))
    assert (await on.source.granted()).epoch == 3
    await finished_at_source(on, FLIES + OVER, epoch=3)


async def test_with_both_ends_lost_the_answer_is_resumed_elsewhere(bench: Bench) -> None:
    on, other = await stage(bench), await bench.worker()
    await on.granted()
    await on.source.crash()
    await on.target.crash()
    on.scheduler.answers.put_nowait(placement("w3", other.address, fence=3))
    grant = await other.granted()
    assert grant.log == (*ids(" flies"), *ids(" over"))
    other.say(on.frame(grant, FLIES + OVER, " on", FinishReason.LENGTH))
    (move,) = (await on.ends()).moves
    assert (move.from_worker_id, move.to_worker_id, move.kind) == ("w1", "w3", MoveKind.REBUILT)


async def test_an_answer_that_ends_while_it_is_copied_ends_once(bench: Bench) -> None:
    on = await stage(bench)
    await on.copying()
    on.source.say(on.frame(on.grant, FLIES, " on", FinishReason.LENGTH))
    end = await on.ends()
    assert end.moves == ()
    assert (await on.source.abandons()).move_id == PART
    assert (await on.target.abandons()).move_id == PART


async def test_a_stop_text_ends_an_answer_in_the_midst_of_its_move_at_both_ends(bench: Bench) -> None:
    on = await stage(bench, "the hill")
    await on.copying()
    on.source.say(on.frame(on.grant, FLIES, " the hill and"))
    end = await on.ends()
    assert end.answers[0].stop == "the hill"
    assert {type(await on.source.commanded()).__name__ for _ in range(2)} == {"Cancel", "Abandon"}
    assert (await on.target.abandons()).move_id == PART


async def test_a_stop_text_that_began_before_the_move_ends_after_it(bench: Bench) -> None:
    on = await stage(bench, "the sea")
    await on.copying()
    on.source.say(on.frame(on.grant, FLIES, " over the"), Stopped(PART, 9, 1))
    await on.reads(" flies over ")
    on.target.say(Ready(PART, 40))
    grant = await on.target.granted()
    on.target.say(on.frame(grant, FLIES + len(ids(" over the")), " sea and"))
    end = await on.ends()
    assert (end.answers[0].stop, end.answers[0].reason) == ("the sea", FinishReason.STOP)
    assert {(await on.source.cancelled()).epoch, (await on.target.cancelled()).epoch} == {1, 2}


@pytest.mark.parametrize("until", ["copying", "stopped", "granted"])
async def test_a_client_that_leaves_ends_it_wherever_it_may_be(bench: Bench, until: str) -> None:
    on = await stage(bench)
    await getattr(on, until)()
    on.running.cancel()
    await asyncio.wait([on.running])
    said = [await on.source.commanded() for _ in range(1 if until == "granted" else 2)]
    assert "Cancel" in {type(one).__name__ for one in said}
    assert type(await on.target.commanded()).__name__ == ("Cancel" if until == "granted" else "Abandon")
    async with asyncio.timeout(WAIT_S):
        await on.scheduler.released.wait()


async def test_a_client_that_leaves_with_the_last_word_waits_for_no_report(bench: Bench) -> None:
    """The scheduler has not heard yet how the move went; the place is given back all the same."""
    on = await stage(bench)
    on.scheduler.deaf = 1 << 30
    grant = await on.granted()
    on.target.say(on.frame(grant, FLIES + OVER, " the", FinishReason.LENGTH))
    async with asyncio.timeout(WAIT_S):
        while not isinstance(on.events[-1], Finished):
            on.said.clear()
            await on.said.wait()
    on.running.cancel()
    await asyncio.wait([on.running])
    assert on.running.cancelled()
    assert "moves" not in {task.get_name() for task in asyncio.all_tasks()}
    async with asyncio.timeout(WAIT_S):
        await on.scheduler.released.wait()


async def test_it_moves_on_and_back_again(bench: Bench) -> None:
    on = await stage(bench)
    grant = await on.granted()
    on.target.say(on.frame(grant, FLIES + OVER, " the"))
    await on.source.cancelled()
    await on.scheduler.outcome()
    on.scheduler.relocations.put_nowait(
        Relocation("move-2", placement("w1", on.source.address), "balance", MoveKind.TOKENS)
    )
    expect = await on.source.expects()
    assert (expect.move_id, expect.request.epoch) == ("move-2/0", 2)
    on.source.say(Reserved("move-2/0", 1, 16, ""), Ready("move-2/0", 40))
    back = await on.source.granted()
    assert back.epoch == 3
    on.source.say(Frame(back.key, 3, FLIES + OVER + 1, (EOS,), FinishReason.STOP))
    assert (await on.target.cancelled()).epoch == 2
    end = await on.ends()
    assert [(move.from_worker_id, move.to_worker_id) for move in end.moves] == [("w1", "w2"), ("w2", "w1")]


async def test_a_scheduler_that_dies_in_the_midst_of_a_move_is_not_missed(bench: Bench) -> None:
    """Its successor is told of the place where it is, before the move and after it."""
    on = await stage(bench)
    await on.copying()
    await on.scheduler.crash()
    successor = await bench.scheduler()
    (held,) = (await successor.hears()).held
    assert (held.worker_id, held.request_id) == ("w1", "client's own")
    on.source.say(Stopped(PART, 9, 1))
    on.target.say(Ready(PART, 40))
    grant = await on.target.granted()
    on.target.say(on.frame(grant, FLIES, " the"))
    told = await successor.hears()
    (moved,) = told.held
    assert (moved.number, moved.worker_id, moved.fence, told.released) == (held.number, "w2", 2, ())
    relocation = Relocation("move-3", placement("w1", on.source.address), "asked", MoveKind.TOKENS)
    successor.relocating.put_nowait((moved.number, relocation))
    await on.source.cancelled()
    assert (await on.source.expects()).move_id == "move-3/0"
    on.source.say(MoveFailed("move-3/0", "NO_ROOM", "has none"))
    assert (await successor.outcome()).move_id == "move-3"
    on.running.cancel()


async def test_a_request_moves_before_its_first_token(bench: Bench) -> None:
    """Its prompt is computed at the target, and whoever is first gives the token."""
    on = Stage(bench, await bench.scheduler(), await bench.worker(), await bench.worker())
    on.scheduler.answers.put_nowait(placement("w1", on.source.address))
    on.running = asyncio.create_task(on._read(asked()))
    first = await on.source.granted()
    on.relocate(None)
    expect = await on.target.expects()
    assert (expect.kind, expect.request.log) == (MoveKind.TOKENS, ())
    on.target.say(Reserved(PART, 0, 0, ""), Ready(PART, len(first.prompt)))
    grant = await on.target.granted()
    on.target.say(on.frame(grant, 0, " flies", FinishReason.LENGTH))
    assert (await on.source.cancelled()).epoch == 1
    end = await on.ends()
    assert (end.moves, end.placement.worker_id) == ((), "w2")
    (started,) = [event for event in on.events if isinstance(event, Started)]
    assert started.placement.worker_id == "w2"
    assert (await on.scheduler.outcome()).moved


async def test_a_scheduler_that_does_not_hear_how_it_went_is_told_again(bench: Bench) -> None:
    on = await stage(bench)
    on.scheduler.deaf = 1
    grant = await on.granted()
    on.target.say(on.frame(grant, FLIES + OVER, " the"))
    assert (await on.scheduler.outcome()).moved
    on.running.cancel()


async def test_a_request_that_is_to_go_where_it_is_stays_there(bench: Bench) -> None:
    """As when a new leader decides what the former one had begun."""
    on = await stage(bench)
    on.scheduler.relocations.put_nowait(Relocation(MOVE, placement("w1", on.source.address), "drain", MoveKind.KV))
    assert (await on.scheduler.outcome()).moved is False
    await finished_at_source(on)


def counted(outcome: str) -> float:
    """Relocations so far that ended so."""
    labels = {"kind": "kv", "reason": "drain", "outcome": outcome}
    return REGISTRY.get_sample_value("whimbrel_moves_total", labels) or 0.0


async def test_moves_are_counted_by_how_they_ended(bench: Bench) -> None:
    before = {outcome: counted(outcome) for outcome in ("moved", "no_room")}
    gaps = REGISTRY.get_sample_value("whimbrel_move_gap_seconds_count", {"kind": "kv"}) or 0.0
    on = await stage(bench)
    on.relocate()
    await on.target.expects()
    on.target.say(MoveFailed(PART, "NO_ROOM", "has no room"))
    await on.scheduler.outcome()
    assert (counted("moved"), counted("no_room")) == (before["moved"], before["no_room"] + 1)
    await on.source.abandons()
    await on.target.abandons()
    grant = await on.granted()
    on.target.say(on.frame(grant, FLIES + OVER, " the"))
    await on.scheduler.outcome()
    assert counted("moved") == before["moved"] + 1
    assert REGISTRY.get_sample_value("whimbrel_move_gap_seconds_count", {"kind": "kv"}) == gaps + 1
    on.running.cancel()
