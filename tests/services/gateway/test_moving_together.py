"""The answers of one request move together: all of them, or none, unless one is gone already."""

from mesh.moves import Abandon, MoveFailed, Ready, Relocation, Reserved, Stopped
from mesh.requests import FinishReason, Frame, Grant, MoveKind
from services.gateway.answer import Finished
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import FakeWorker, placement
from tests.services.gateway.moving import MOVE
from tests.services.gateway.test_answer import ids, text_of
from tests.services.gateway.test_several_answers import Asking, of, started, three

TEXTS = (" the sea", " the hill", " calm")


async def moving(bench: Bench) -> tuple[FakeWorker, FakeWorker, Asking, list[Grant]]:
    """Until the source is told to send all three, each with a token, and no other command is left to read."""
    scheduler, source, running, grants = await started(bench, three())
    source.say(*(Frame(grant.key, 1, 0, ids(" a")) for grant in grants[1:]))
    target = await bench.worker()
    relocation = Relocation(MOVE, placement("w2", target.address, fence=2), "drain", MoveKind.KV)
    scheduler.relocations.put_nowait(relocation)
    expected = [await target.expects() for _ in grants]
    assert {one.move_id for one in expected} == {part(i) for i in range(3)}
    return source, target, running, grants


def part(index: int) -> str:
    """An answer's own move."""
    return f"{MOVE}/{index}"


async def reserved(source: FakeWorker, target: FakeWorker, *indexes: int) -> None:
    """The target has room for these."""
    for index in indexes:
        target.say(Reserved(part(index), 0, 0, ""))
        assert (await source.sends()).move_id == part(index)


async def test_all_of_them_move_each_by_itself(bench: Bench) -> None:
    source, target, running, grants = await moving(bench)
    await reserved(source, target, 0, 1, 2)
    for index, grant in enumerate(grants):
        source.say(Stopped(part(index), 1, 100))
        target.say(Ready(part(index), 10))
        again = await target.granted()
        assert (again.key, again.epoch, again.move_id) == (grant.key, 2, part(index))
        assert again.sampling.seed == grant.sampling.seed
        target.say(Frame(again.key, 2, len(ids(" a")), ids(TEXTS[index]), FinishReason.LENGTH))
        assert (await source.cancelled()).key == grant.key
    events = await running
    assert [text_of(of(events, index)) for index in range(3)] == [f" a{text}" for text in TEXTS]
    end = events[-1]
    assert isinstance(end, Finished)
    assert [(move.index, move.to_worker_id) for move in end.moves] == [(0, "w2"), (1, "w2"), (2, "w2")]


async def test_one_that_has_no_room_keeps_the_others_where_they_are(bench: Bench) -> None:
    source, target, running, grants = await moving(bench)
    await reserved(source, target, 0, 1)
    target.say(MoveFailed(part(2), "NO_ROOM", "has no room"))
    said = [await source.commanded() for _ in range(5)]
    assert {one.move_id for one in said if isinstance(one, Abandon)} == {part(index) for index in range(3)}
    again = {one.key: one.epoch for one in said if isinstance(one, Grant)}  # what was told to send may have stopped
    assert again == {grant.key: 2 for grant in grants[:2]}
    assert {(await target.abandons()).move_id for _ in grants} == {part(index) for index in range(3)}
    for index, grant in enumerate(grants):
        epoch = again.get(grant.key, 1)
        source.say(Frame(grant.key, epoch, len(ids(" a")), ids(TEXTS[index]), FinishReason.LENGTH))
    end = (await running)[-1]
    assert isinstance(end, Finished)
    assert end.moves == ()


async def test_one_that_fails_when_another_is_gone_goes_too_and_is_computed_there(bench: Bench) -> None:
    source, target, running, grants = await moving(bench)
    await reserved(source, target, 0, 1, 2)
    target.say(Ready(part(1), 10))
    first = await target.granted()
    assert first.key == grants[1].key
    target.say(MoveFailed(part(0), "CORRUPT", "it came damaged"))
    forced = await target.granted()
    assert (forced.key, forced.epoch) == (grants[0].key, 2)
    assert (await source.abandons()).move_id == part(0)
    target.say(Ready(part(2), 10))
    last = await target.granted()
    for grant, text in zip((forced, first, last), TEXTS, strict=True):
        target.say(Frame(grant.key, 2, len(ids(" a")), ids(text), FinishReason.LENGTH))
    end = (await running)[-1]
    assert isinstance(end, Finished)
    assert [(move.index, move.kind) for move in end.moves] == [
        (0, MoveKind.REBUILT), (1, MoveKind.KV), (2, MoveKind.KV),
    ]  # fmt: skip


async def test_one_that_has_ended_is_left_out(bench: Bench) -> None:
    source, target, running, grants = await moving(bench)
    source.say(Frame(grants[1].key, 1, len(ids(" a")), ids(" the hill"), FinishReason.LENGTH))
    assert {(await source.abandons()).move_id, (await target.abandons()).move_id} == {part(1)}
    await reserved(source, target, 0, 2)
    for index in (0, 2):
        target.say(Ready(part(index), 10))
        grant = await target.granted()
        target.say(Frame(grant.key, 2, len(ids(" a")), ids(TEXTS[index]), FinishReason.LENGTH))
    events = await running
    assert [text_of(of(events, index)) for index in range(3)] == [f" a{text}" for text in TEXTS]
