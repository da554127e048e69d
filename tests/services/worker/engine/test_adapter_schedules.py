"""Whatever happens to base and adapters, each request has its own model's tokens, and no block is lost."""

from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.requests import FinishReason
from services.worker.engine.adapter import Adapter
from services.worker.engine.batch import Limits
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import TokenStep
from tests.services.worker.engine.lora import Trained, trained
from tests.services.worker.engine.tiny import greedy, prompt, replica, request

COUNT, BLOCKS = 10, 14  # three of the longest fill the pool: some give way
NAMES, LENGTHS = ("llama", "a", "b"), (5, 17, 30)
SEEDS = {"a": 1, "b": 2}
Event = tuple[str, str, int]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("ask", "ask", "ask", "step", "step", "cancel", "leave", "come")),
        st.sampled_from(NAMES),
        st.integers(0, 8),
    ),
    max_size=24,
)


def adapter(name: str) -> Trained:
    """Made once."""
    return trained("llama", SEEDS[name], target_modules="all-linear")


def oracle(name: str, length: int) -> tuple[int, ...]:
    """What the merged model says."""
    ids = prompt(length)
    return adapter(name).greedy(ids, COUNT) if name in SEEDS else greedy("llama", ids, COUNT)


@dataclass
class Play:
    """A replica, what was asked of it, and what came."""

    model: PackedReplica
    made: dict[str, Adapter]
    here: set[str] = field(default_factory=lambda: {"llama"})
    asked: dict[str, tuple[str, int]] = field(default_factory=dict)
    told: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ends: dict[str, FinishReason] = field(default_factory=dict)

    def hear(self, steps: list[TokenStep]) -> None:
        """Keeps what each request was told."""
        for step in steps:
            self.told[step.request_id] = self.told.get(step.request_id, ()) + step.tokens
            if step.finish:
                assert step.request_id not in self.ends
                self.ends[step.request_id] = step.finish

    def happen(self, event: Event) -> None:
        """One event; one that cannot be now is none."""
        what, name, number = event
        if what == "ask" and name in self.here:
            key, length = f"r{len(self.asked)}", LENGTHS[number % 3]
            self.asked[key] = (name, length)
            self.hear(self.model.add(request(key, prompt(length), COUNT, on=name)))
        elif what == "cancel" and self.asked:
            self.hear(self.model.cancel(f"r{number % len(self.asked)}"))
        elif what == "step":
            for _ in range(number):
                self.hear(self.model.step() if self.model.has_work else [])
        elif what == "leave" and name in self.here & SEEDS.keys():
            self.here.discard(name)
            self.hear(self.model.remove_adapter(name))
        elif what == "come" and name not in self.here:
            self.here.add(name)
            self.model.add_adapter(self.made[name])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_every_request_gets_its_own_models_tokens_and_every_block_comes_back(events: list[Event]) -> None:
    model = replica(blocks=BLOCKS, limits=Limits(batch_tokens=24, running=4))
    play = Play(model, {name: adapter(name).on(model, name) for name in SEEDS})
    with torch.inference_mode():
        for event in [("come", "a", 0), ("come", "b", 0), *events]:
            play.happen(event)
        while model.has_work:
            play.hear(model.step())
    assert play.ends.keys() == play.asked.keys()
    for key, (name, length) in play.asked.items():
        tokens = play.told.get(key, ())
        assert tokens == oracle(name, length)[: len(tokens)], (key, name)
        assert len(tokens) == COUNT or play.ends[key] in (FinishReason.CANCELLED, FinishReason.ERROR)
    assert model.stats().free_blocks == model.stats().total_blocks
