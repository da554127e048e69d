"""The line to a worker: one stream for all requests; what is granted is followed, what breaks fails."""

import asyncio

import pytest

from mesh.errors import Broken, MeshError, NoRoom, NotFound, Unreachable
from mesh.requests import FinishReason, Frame, Sampling
from services.gateway.journal import Journal, Question
from services.gateway.relay import Line
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import WAIT_S, FakeWorker

SAMPLING = Sampling(64, 0.5, 3, 0.75, 0.25, 1.5, 0.5, -0.5, 1 << 63, (2, 3))


def journal(key: str = "k") -> Journal:
    """A request."""
    return Journal(key, "m", Question("d1", (7, 8), SAMPLING), asyncio.Event())


def line(bench: Bench, fake: FakeWorker) -> Line:
    """The gateway's line to a worker."""
    return bench.lines.to("w1", fake.address)


async def news(one: Journal, after: int = 0) -> tuple[int, ...]:
    """The next tokens, in good time."""
    async with asyncio.timeout(WAIT_S):
        while (fresh := one.news(after)) is None:
            one.changed.clear()
            await one.changed.wait()
    return fresh.tokens


async def test_a_broken_line_is_forgotten_and_the_next_request_gets_another(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    broken = line(bench, fake)
    with broken.granted(one):
        await fake.granted()
        fake.hang_up()
        with pytest.raises(Unreachable):
            await news(one)
    assert broken.broken
    assert line(bench, fake) is not broken


async def test_a_worker_that_stops_finishes_what_it_has_and_its_line_is_closed_then(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    leaving = line(bench, fake)
    with leaving.granted(one):
        await fake.granted()
        fake.say_farewell()
        fake.say(Frame("k", 1, 0, (5,)))
        assert await news(one) == (5,)
        assert line(bench, fake) is not leaving
        assert not fake.closed.is_set()
        fake.say(Frame("k", 1, 1, (6,), FinishReason.LENGTH))
        assert await news(one, 1) == (6,)
    async with asyncio.timeout(WAIT_S):
        await fake.closed.wait()


async def test_a_grant_arrives_whole_and_its_frames_come_back(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    with line(bench, fake).granted(one):
        grant = await fake.granted()
        assert (grant.key, grant.epoch, grant.model, grant.digest) == ("k", 1, "m", "d1")
        assert (grant.prompt, grant.log) == ((7, 8), ())
        assert grant.sampling == SAMPLING
        fake.say(Frame("k", 1, 0, (5, 6)))
        assert await news(one) == (5, 6)
        fake.say(Frame("k", 1, 2, (9,), FinishReason.STOP))
        assert await news(one, 2) == (9,)
    assert one.finish is FinishReason.STOP
    assert fake.gateways == ["gateway.7"]


async def test_the_frames_of_one_step_find_their_requests(bench: Bench) -> None:
    fake, one, two = await bench.worker(), journal("one"), journal("two")
    with line(bench, fake).granted(one), line(bench, fake).granted(two):
        fake.say(Frame("two", 1, 0, (22,)), Frame("one", 1, 0, (11,)), Frame("nobody", 1, 0, (33,)))
        assert (await news(one), await news(two)) == ((11,), (22,))
    assert fake.gateways == ["gateway.7"]


async def test_leaving_early_cancels_the_request_at_the_worker(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    with line(bench, fake).granted(one):
        await fake.granted()
    cancel = await fake.cancelled()
    assert (cancel.key, cancel.epoch) == ("k", 1)


async def test_a_finished_request_is_not_cancelled(bench: Bench) -> None:
    fake, one, next_one = await bench.worker(), journal(), journal("next")
    with line(bench, fake).granted(one):
        await fake.granted()
        fake.say(Frame("k", 1, 0, (5,), FinishReason.LENGTH))
        await news(one)
    with line(bench, fake).granted(next_one):
        assert (await fake.granted()).key == "next"


async def test_a_worker_that_dies_fails_all_that_runs_on_it(bench: Bench) -> None:
    fake, journals = await bench.worker(), [journal("one"), journal("two")]
    with line(bench, fake).granted(journals[0]), line(bench, fake).granted(journals[1]):
        await fake.granted()
        await fake.crash()
        for one in journals:
            with pytest.raises(Unreachable) as caught:
                await news(one)
            assert (caught.value.reason, caught.value.metadata) == ("WORKER_LOST", {"worker": "w1"})
            assert caught.value.retry_after_s is not None


async def test_a_worker_that_hangs_up_fails_what_runs_on_it_too(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    with line(bench, fake).granted(one):
        await fake.granted()
        fake.hang_up()
        with pytest.raises(Unreachable, match="closed its stream"):
            await news(one)


async def test_a_worker_that_is_not_there_fails_the_request(bench: Bench) -> None:
    one = journal()
    with bench.lines.to("w1", "127.0.0.1:1").granted(one), pytest.raises(Unreachable) as caught:
        await news(one)
    assert caught.value.reason == "WORKER_UNREACHABLE"


async def test_what_came_before_the_line_broke_is_kept(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    with line(bench, fake).granted(one):
        fake.say(Frame("k", 1, 0, (5, 6)))
        assert await news(one) == (5, 6)
        await fake.crash()
        with pytest.raises(Unreachable):
            await news(one, 2)
    assert one.tokens == [5, 6]


async def test_a_broken_line_is_replaced_and_an_unbroken_one_is_not(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    first = line(bench, fake)
    assert line(bench, fake) is first
    with first.granted(one):
        fake.hang_up()
        with pytest.raises(Unreachable):
            await news(one)
    second, again = line(bench, fake), journal("again")
    assert second is not first
    with second.granted(again):
        fake.say(Frame("again", 1, 0, (5,)))
        assert await news(again) == (5,)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("REPLICA_NOT_RESIDENT", NotFound),
        ("QUEUE_FULL", NoRoom),
        ("ENGINE_FAILED", Broken),
        ("NEVER_HEARD_OF", Broken),
    ],
)
async def test_a_failure_is_the_error_that_it_stands_for(bench: Bench, reason: str, kind: type[MeshError]) -> None:
    fake, one = await bench.worker(), journal()
    with line(bench, fake).granted(one):
        fake.say(Frame("k", 1, failure_reason=reason, failure="it is so"))
        with pytest.raises(MeshError, match="it is so") as caught:
            await news(one)
    assert type(caught.value) is kind
    assert (caught.value.reason, caught.value.metadata) == (reason, {"worker": "w1"})


async def test_the_failure_of_an_older_epoch_is_ignored(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    with line(bench, fake).granted(one):
        pass
    with line(bench, fake).granted(one):
        fake.say(Frame("k", 1, failure_reason="ENGINE_FAILED", failure="old"), Frame("k", 2, 0, (5,)))
        assert await news(one) == (5,)


async def test_closing_the_lines_fails_what_still_runs(bench: Bench) -> None:
    fake, one = await bench.worker(), journal()
    with line(bench, fake).granted(one):
        await fake.granted()
        await bench.lines.close()
        with pytest.raises(Unreachable):
            await news(one)
