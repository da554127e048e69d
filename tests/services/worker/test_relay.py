"""The worker's end of a line, on a real engine: a guide is compiled before the engine sees it, and nobody waits."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from mesh.checkpoint import layout
from mesh.checkpoint.layout import File
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.requests import Cancel, Farewell, FinishReason, Frame, Grant, Guide, GuideKind, Sampling, TokenBias
from services.worker.engine.engine import Engine
from services.worker.engine.errors import UnknownReplica
from services.worker.engine.request import TokenStep
from services.worker.guides import Guides
from services.worker.loading.loader import Order
from services.worker.naming import replica_name
from services.worker.relay import Relay
from tests.services.worker.engine.guided import DATE, SCHEMA, byte_level, end_id, text_of
from tests.services.worker.engine.tiny import greedy, prompt, replica
from tests.services.worker.loading.checkpoints import Checkpoint, checkpoint
from tests.services.worker.loading.fake_store import FakeStore, serving

WAIT_S = 60.0
SAMPLING = Sampling(200, 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 1, (end_id(),))


def stored(**files: str) -> Checkpoint:
    """A checkpoint with these small files, "__" for "." in their names."""
    contents = {name.replace("__", "."): text.encode() for name, text in files.items()}
    listed = tuple(File(path, len(data), blake3(data).hexdigest()) for path, data in sorted(contents.items()))
    made = checkpoint((100,))
    manifest = replace(made.manifest, files=listed)
    return Checkpoint(replace(manifest, digest=layout.digest_of(manifest)), made.parts, contents)


def with_tokenizer() -> Checkpoint:
    """One whose tokenizer and end are those of the guides' tests."""
    return stored(
        config__json=json.dumps({"model_type": "llama", "eos_token_id": end_id()}),
        tokenizer__json=byte_level().to_str(),
        tokenizer_config__json=json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}),
    )


class Bench:
    """A worker's relay, engine and replica, and one line to it."""

    def __init__(self, relay: Relay, engine: Engine, store: FakeStore) -> None:
        self.relay, self.engine, self.store = relay, engine, store
        self.digest = store.checkpoint.digest
        self._commands: asyncio.Queue[Grant | Cancel | None] = asyncio.Queue()
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.line: asyncio.Task[None] | None = None
        self.farewell = asyncio.Event()

    def grant(self, key: str, sampling: Sampling, log: tuple[int, ...] = (), epoch: int = 1, model: str = "m") -> None:
        """Sends a grant."""
        self._commands.put_nowait(Grant(key, epoch, model, self.digest, prompt(9), log, sampling))

    def cancel(self, key: str, epoch: int = 1) -> None:
        """Sends a cancel."""
        self._commands.put_nowait(Cancel(key, epoch))

    async def frame(self) -> Frame:
        """The next one, whoever's."""
        async with asyncio.timeout(WAIT_S):
            return await self._frames.get()

    async def whole(self, *keys: str) -> dict[str, tuple[Frame, ...]]:
        """All frames of these requests, to the end of each."""
        frames: dict[str, tuple[Frame, ...]] = dict.fromkeys(keys, ())
        going = set(keys)
        while going:
            frame = await self.frame()
            frames[frame.key] += (frame,)
            if frame.finish or frame.failure_reason:
                going.remove(frame.key)
        return frames

    async def leaves(self) -> None:
        """Waits for the worker's farewell."""
        async with asyncio.timeout(WAIT_S):
            await self.farewell.wait()

    async def ended(self) -> None:
        """Closes the line, as a gateway does after a farewell, and waits for its end."""
        self._commands.put_nowait(None)
        assert self.line
        async with asyncio.timeout(WAIT_S):
            await self.line

    async def serve(self) -> None:
        """The line, until it ends or is cancelled."""

        async def commands() -> AsyncIterator[Grant | Cancel]:
            while command := await self._commands.get():
                yield command

        async with aclosing(self.relay.serve(commands())) as steps:
            async for news in steps:
                for one in news:
                    if isinstance(one, Farewell):
                        self.farewell.set()
                    else:
                        self._frames.put_nowait(one)


@asynccontextmanager
async def working(held: Checkpoint, scratch: Path) -> AsyncIterator[Bench]:
    """A worker that has one replica of the checkpoint of a store."""
    async with serving(held) as (store, address):
        channels, relay = Channels(), Relay(asyncio.get_running_loop())
        engine = Engine(relay.on_steps)
        order = Order("m", held.digest, address)

        def order_of(name: str) -> Order:
            if name != order.replica:
                raise UnknownReplica(f"no replica of {name} is resident")
            return order

        relay.begin(engine, Guides(StoreClient(channels), order_of, scratch))
        engine.start()
        engine.add_replica(replica("llama", name=replica_name("m", held.digest)))
        bench = Bench(relay, engine, store)
        bench.line = line = asyncio.create_task(bench.serve())
        yield bench
        line.cancel()
        await asyncio.wait([line])
        await asyncio.to_thread(engine.close)
        await channels.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A worker whose model has a tokenizer."""
    async with working(with_tokenizer(), tmp_path) as bench:
        yield bench


def tokens_of(frames: tuple[Frame, ...]) -> tuple[int, ...]:
    """All tokens, in order."""
    return sum((frame.tokens for frame in frames), ())


async def test_a_worker_that_stops_says_farewell_and_finishes_what_crosses_it(bench: Bench) -> None:
    long = replace(SAMPLING, max_tokens=40, stop_token_ids=())
    for key in "abcdef":
        bench.grant(key, long)
    await bench.frame()
    bench.relay.drain()
    await bench.leaves()
    bench.grant("late", long)
    answers = await bench.whole(*"abcdef", "late")
    assert all(frames[-1].finish is FinishReason.LENGTH for frames in answers.values())
    await bench.ended()


async def test_what_was_cancelled_is_told_of_again_when_the_engine_has_dropped_it(bench: Bench) -> None:
    """Until then it counts as running, and an idle replica would look busy for good."""
    told = asyncio.Event()
    bench.relay.on_load = told.set
    bench.relay.on_steps([TokenStep("gone#1", 0, (), FinishReason.CANCELLED)])
    await asyncio.wait_for(told.wait(), 60.0)


async def test_a_guided_grant_is_answered_in_its_guides_shape(bench: Bench) -> None:
    bench.grant("r", replace(SAMPLING, guide=SCHEMA))
    frames = (await bench.whole("r"))["r"]
    assert json.loads(text_of(tokens_of(frames))).keys() == {"name", "legs", "kind"}
    assert frames[-1].finish is FinishReason.STOP


async def test_a_guided_answer_goes_on_from_the_log_as_if_it_had_never_stopped(bench: Bench) -> None:
    sampling = replace(SAMPLING, guide=SCHEMA, temperature=1.0, seed=11)
    bench.grant("r", sampling)
    whole = tokens_of((await bench.whole("r"))["r"])
    bench.grant("r", sampling, log=whole[:6], epoch=2)
    rest = (await bench.whole("r"))["r"]
    assert (rest[0].seq, tokens_of(rest)) == (6, whole[6:])


async def test_what_comes_after_a_guided_grant_does_not_wait_for_its_guide(bench: Bench) -> None:
    """The store does not answer while the first one's guide needs its files."""
    bench.store.files_flow.clear()
    bench.grant("guided", replace(SAMPLING, guide=DATE))
    bench.grant("free", replace(SAMPLING, max_tokens=4))
    assert tokens_of((await bench.whole("free"))["free"]) == greedy("llama", prompt(9), 4)
    bench.store.files_flow.set()
    assert len(text_of(tokens_of((await bench.whole("guided"))["guided"]))) == 10


async def test_a_cancel_reaches_one_whose_guide_is_not_ready(bench: Bench) -> None:
    bench.store.files_flow.clear()
    bench.grant("guided", replace(SAMPLING, guide=DATE))
    bench.cancel("guided")
    bench.grant("free", replace(SAMPLING, max_tokens=1))
    await bench.whole("free")  # commands are read in order
    bench.store.files_flow.set()
    bench.grant("again", replace(SAMPLING, guide=DATE))
    frames = await bench.whole("again")
    assert frames.keys() == {"again"}
    assert sum(one.running + one.waiting for one in bench.engine.stats().replicas.values()) == 0


async def test_a_guide_that_cannot_be_compiled_is_refused_with_the_librarys_reason(bench: Bench) -> None:
    bench.grant("r", replace(SAMPLING, guide=Guide(GuideKind.REGEX, "(")))
    (frame,) = (await bench.whole("r"))["r"]
    assert frame.failure_reason == "BAD_GUIDE"
    assert "unclosed group" in frame.failure


async def test_a_guided_grant_for_a_replica_that_is_gone_says_so(bench: Bench) -> None:
    bench.grant("r", replace(SAMPLING, guide=DATE), model="other")
    (frame,) = (await bench.whole("r"))["r"]
    assert frame.failure_reason == "REPLICA_NOT_RESIDENT"


async def test_a_model_without_a_tokenizer_cannot_be_guided(tmp_path: Path) -> None:
    async with working(stored(config__json='{"model_type": "llama"}'), tmp_path) as bench:
        bench.grant("r", replace(SAMPLING, guide=DATE))
        (frame,) = (await bench.whole("r"))["r"]
        assert (frame.failure_reason, "tokenizer" in frame.failure) == ("NO_TOKENIZER", True)


async def test_a_tokenizer_is_fetched_once_for_all_guides_of_a_checkpoint(bench: Bench) -> None:
    for key, guide in {"a": DATE, "b": SCHEMA, "c": DATE}.items():
        bench.grant(key, replace(SAMPLING, guide=guide))
    await bench.whole("a", "b", "c")
    assert bench.store.files_read == 3


async def test_biases_and_likelihoods_travel_with_a_grant_and_its_frames(bench: Bench) -> None:
    raised = replace(SAMPLING, max_tokens=3, top_logprobs=2, logit_bias=(TokenBias(77, 100.0),))
    bench.grant("r", raised)
    frames = (await bench.whole("r"))["r"]
    assert tokens_of(frames) == (77, 77, 77)
    assert [[len(likely.top) for likely in frame.logprobs] for frame in frames] == [[2], [2], [2]]
    bench.grant("none", replace(SAMPLING, max_tokens=3))
    assert all(not frame.logprobs for frame in (await bench.whole("none"))["none"])


async def test_a_bias_for_a_token_that_the_model_has_not_is_refused(bench: Bench) -> None:
    bench.grant("r", replace(SAMPLING, logit_bias=(TokenBias(100_000, 1.0),)))
    (frame,) = (await bench.whole("r"))["r"]
    assert (frame.failure_reason, "tokens must be from 0" in frame.failure) == ("REFUSED", True)
