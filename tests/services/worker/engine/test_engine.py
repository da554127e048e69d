import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from mesh.requests import FinishReason
from services.worker.engine.batch import Limits
from services.worker.engine.engine import Engine
from services.worker.engine.errors import (
    DuplicateReplica,
    DuplicateRequest,
    EngineClosed,
    PromptTooLong,
    QueueFull,
    UnknownReplica,
)
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.replica import Replica
from services.worker.engine.request import TokenStep
from tests.services.worker.engine.tiny import BLOCK_TOKENS, greedy, prompt, replica, request, tokens_of

PATIENCE_S = 60.0


class Heard:
    """What the engine said, in order. `gate` holds the engine's thread inside its callback."""

    def __init__(self) -> None:
        self.steps: list[TokenStep] = []
        self.react: Callable[[TokenStep], None] = lambda step: None
        self.gate = threading.Event()
        self.gate.set()
        self._news = threading.Condition()

    def __call__(self, steps: list[TokenStep]) -> None:
        with self._news:
            self.steps += steps
            self._news.notify_all()
        for step in steps:
            self.react(step)
        assert self.gate.wait(PATIENCE_S)

    def of(self, request_id: str) -> list[TokenStep]:
        return [step for step in self.steps if step.request_id == request_id]

    def wait(self, request_id: str, tokens: int | None = None, steps: int | None = None) -> list[TokenStep]:
        """Until the request has so many tokens or steps, or has finished."""

        def there() -> bool:
            mine = self.of(request_id)
            return (
                any(step.finish for step in mine)
                or (tokens is not None and sum(len(step.tokens) for step in mine) >= tokens)
                or (steps is not None and len(mine) >= steps)
            )

        with self._news:
            assert self._news.wait_for(there, PATIENCE_S), f"{request_id}: {self.of(request_id)[-3:]}"
        return self.of(request_id)


@contextmanager
def running(*replicas: Replica, **options: Any) -> Iterator[tuple[Engine, Heard]]:
    heard = Heard()
    engine = Engine(heard, threads=1, **options)
    engine.start()
    for one in replicas:
        engine.add_replica(one)
    try:
        yield engine, heard
    finally:
        heard.gate.set()
        engine.close()


def finish(steps: list[TokenStep]) -> FinishReason | None:
    return steps[-1].finish


def test_requests_from_many_threads_all_get_their_tokens() -> None:
    with running(replica("llama"), replica("gpt2")) as (engine, heard):
        work = [(f"{family} {n}", family, prompt(n)) for family in ("llama", "gpt2") for n in (3, 9, 17, 30)]
        threads = [
            threading.Thread(target=engine.submit, args=(request(name, ids, on=family),)) for name, family, ids in work
        ]
        for thread in threads:
            thread.start()
        for thread, (name, family, ids) in zip(threads, work, strict=True):
            thread.join()
            assert tokens_of(heard.wait(name)) == {name: greedy(family, ids, 24)}
        stats = engine.stats().replicas
        assert {name: one.tokens for name, one in stats.items()} == {"llama": 96, "gpt2": 96}
        assert all((one.running, one.waiting, one.free_blocks) == (0, 0, one.total_blocks) for one in stats.values())


def test_a_cancelled_request_takes_no_further_step_and_its_blocks_are_free() -> None:
    with running(replica()) as (engine, heard):
        engine.submit(request("r", prompt(20), 400))
        heard.wait("r", tokens=2)
        heard.gate.clear()  # the engine stops within the callback of some step ...
        heard.wait("r", tokens=len(heard.of("r")) + 1)
        before = engine.stats().replicas["llama"]
        engine.cancel("r")
        heard.gate.set()  # ... and finds the cancellation before it takes another
        assert finish(heard.wait("r")) is FinishReason.CANCELLED
        after = engine.stats().replicas["llama"]
        held = -(-(20 + before.tokens - 1) // BLOCK_TOKENS)  # the newest token has no KV yet
        assert (before.running, before.free_blocks) == (1, before.total_blocks - held)
        assert after.steps <= before.steps + 1
        assert (after.running, after.free_blocks) == (0, after.total_blocks)


def test_one_that_cancels_from_the_callback_hears_no_more_tokens() -> None:
    with running(replica()) as (engine, heard):
        heard.react = lambda step: engine.cancel("r") if step.seq == 3 else None
        engine.submit(request("r", prompt(20), 400))
        steps = heard.wait("r")
        assert [step.seq for step in steps] == [0, 1, 2, 3, 4]
        assert (steps[-1].tokens, finish(steps)) == ((), FinishReason.CANCELLED)
        assert engine.stats().replicas["llama"].free_blocks == 64


def test_a_waiting_request_can_be_cancelled() -> None:
    with running(replica(limits=Limits(running=1))) as (engine, heard):
        heard.gate.clear()
        engine.submit(request("first", prompt(9)))
        heard.wait("first", tokens=1)
        engine.submit(request("waiting", prompt(9)))
        heard.react = lambda step: engine.cancel("waiting") if (step.request_id, step.seq) == ("first", 2) else None
        heard.gate.set()
        assert heard.wait("waiting") == [TokenStep("waiting", 0, (), FinishReason.CANCELLED)]
        assert tokens_of(heard.wait("first")) == {"first": greedy("llama", prompt(9), 24)}
        engine.cancel("never heard of")
        heard.steps.clear()
        engine.submit(request("waiting", prompt(9)))  # the id is free again
        assert tokens_of(heard.wait("waiting")) == {"waiting": greedy("llama", prompt(9), 24)}


class OutOfMemoryOnce:
    """A forward hook on a layer, as a full device would behave: one step fails, later ones do not."""

    def __init__(self, victim: PackedReplica) -> None:
        self.armed = threading.Event()
        victim._runner.module.model.layers[1].register_forward_hook(self)

    def __call__(self, *_: Any) -> None:
        if self.armed.is_set():
            self.armed.clear()
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")


def test_a_step_that_raises_fails_only_its_replicas_requests() -> None:
    victim = replica("qwen2")
    trap = OutOfMemoryOnce(victim)
    with running(victim, replica("llama")) as (engine, heard):
        heard.react = lambda step: trap.armed.set() if (step.request_id, step.seq) == ("a", 3) else None
        for name in ("a", "b"):
            engine.submit(request(name, prompt(9), 300, on="qwen2"))
        engine.submit(request("other", prompt(9)))
        for name in ("a", "b"):
            last = heard.wait(name)[-1]
            assert last.finish is FinishReason.ERROR
            assert "OutOfMemoryError: tried to allocate 2 GiB" in last.error
        assert tokens_of(heard.wait("other")) == {"other": greedy("llama", prompt(9), 24)}
        assert engine.stats().replicas["qwen2"].free_blocks == 64
        engine.submit(request("after", prompt(9), on="qwen2"))
        assert tokens_of(heard.wait("after")) == {"after": greedy("qwen2", prompt(9), 24)}


def test_a_callback_that_raises_does_not_stop_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    with running(replica()) as (engine, heard):

        def fall(step: TokenStep) -> None:
            if step.seq == 2:
                raise RuntimeError("nobody listens")

        heard.react = fall
        engine.submit(request("r", prompt(9)))
        assert tokens_of(heard.wait("r")) == {"r": greedy("llama", prompt(9), 24)}
    assert "nobody listens" in caplog.text


def test_a_removed_replica_fails_its_requests_and_gives_its_memory_back() -> None:
    leaving = replica("qwen2")
    module = leaving._runner.module
    with running(leaving, replica("llama")) as (engine, heard):
        engine.submit(request("r", prompt(9), 400, on="qwen2"))
        engine.submit(request("other", prompt(9)))
        heard.wait("r", tokens=2)
        removed = engine.remove_replica("qwen2")
        with pytest.raises(UnknownReplica):
            engine.submit(request("late", prompt(9), on="qwen2"))
        removed.result(PATIENCE_S)
        assert (finish(heard.of("r")), heard.of("r")[-1].error) == (
            FinishReason.ERROR,
            "qwen2 was removed from this worker",
        )
        assert all(parameter.is_meta for parameter in module.parameters())
        assert list(engine.stats().replicas) == ["llama"]
        assert tokens_of(heard.wait("other")) == {"other": greedy("llama", prompt(9), 24)}
        engine.add_replica(replica("qwen2"))
        engine.submit(request("again", prompt(9), on="qwen2"))
        assert tokens_of(heard.wait("again")) == {"again": greedy("qwen2", prompt(9), 24)}


class StepClock:
    """Every look is a second later: each step has taken one second."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1.0
        return self._now


def turns(heard: Heard) -> list[str]:
    """Who was served, step by step, as far as each had one request."""
    return [step.request_id for step in heard.steps if step.tokens]


def test_replicas_take_turns_by_the_time_they_were_served() -> None:
    with running(replica("llama"), replica("gpt2"), clock=StepClock()) as (engine, heard):
        heard.gate.clear()
        engine.submit(request("start", prompt(3), 1))
        engine.submit(request("a", prompt(3), 20))
        engine.submit(request("b", prompt(3), 20, on="gpt2"))
        heard.gate.set()
        heard.wait("a")
        heard.wait("b")
        both = turns(heard)[1:]
        assert all(abs(both[:n].count("a") - both[:n].count("b")) <= 2 for n in range(len(both)))


def test_a_replica_that_was_idle_gets_its_share_and_no_more() -> None:
    with running(replica("llama"), replica("gpt2"), clock=StepClock()) as (engine, heard):
        heard.react = lambda step: (
            engine.submit(request("late", prompt(3), 10, on="gpt2"))
            if (step.request_id, step.seq) == ("long", 50)
            else None
        )
        engine.submit(request("long", prompt(3), 80))
        heard.wait("long")
        heard.wait("late")
        served = turns(heard)
        window = served[served.index("late") : len(served) - served[::-1].index("late")]
        assert abs(window.count("late") - window.count("long")) <= 2


def test_what_cannot_be_taken_is_refused_by_name() -> None:
    with running(replica(), max_requests=2) as (engine, heard):
        with pytest.raises(UnknownReplica, match="mistral"):
            engine.submit(request("r", prompt(3), on="mistral"))
        with pytest.raises(UnknownReplica):
            engine.remove_replica("mistral")
        with pytest.raises(PromptTooLong):
            engine.submit(request("r", prompt(512)))
        with pytest.raises(DuplicateReplica):
            engine.add_replica(replica())
        engine.submit(request("a", prompt(3), 400))
        with pytest.raises(DuplicateRequest):
            engine.submit(request("a", prompt(3)))
        engine.submit(request("b", prompt(3), 400))
        with pytest.raises(QueueFull, match="2 requests"):
            engine.submit(request("c", prompt(3)))
        engine.cancel("a")
        heard.wait("a")
        engine.submit(request("c", prompt(3)))
        heard.wait("c")


def test_closing_ends_what_runs_and_refuses_what_comes() -> None:
    with running(replica(), replica("gpt2")) as (engine, heard):
        for family in ("llama", "gpt2"):
            engine.submit(request(family, prompt(9), 400, on=family))
            heard.wait(family, tokens=1)
        engine.close()
        assert [finish(heard.of(family)) for family in ("llama", "gpt2")] == [FinishReason.ERROR] * 2
        assert engine.stats().replicas == {}
        with pytest.raises(EngineClosed):
            engine.submit(request("late", prompt(9)))
        with pytest.raises(EngineClosed):
            engine.add_replica(replica())
    Engine(heard).close()  # one that never started


def test_an_idle_engine_sleeps() -> None:
    with running(replica()) as (engine, heard):
        engine.submit(request("r", prompt(3), 2))
        heard.wait("r")
        spent = time.process_time()
        threading.Event().wait(0.3)
        assert time.process_time() - spent < 0.15
        assert engine.stats().replicas["llama"].steps == 2
