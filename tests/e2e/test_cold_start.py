"""From nothing to an answer, and back to nothing: what a client sees of a model's life."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from mesh.clients.gateway_records import ChatMessage, Delta, Finished, ModelState, SamplingWishes, Started
from mesh.facts import Tier
from mesh.requests import FinishReason, Phase, Progress, StartKind
from tests.e2e.asking import Answer, ask, deploy, until_model, whole
from tests.e2e.conftest import Running
from tests.e2e.library import BIG


async def test_a_model_goes_from_disk_to_warm_to_nothing_and_wakes_from_memory(shared: Running, tmp_path: Path) -> None:
    source = shared.library.edition(BIG, tmp_path / "model")
    model = await deploy(shared.client, "fresh", source=str(source))
    assert (model.state, model.replicas, model.nearest_tier) == (ModelState.COLD, (), Tier.DISK)

    cold = await ask(shared.client, "fresh")
    assert_in_order(cold)
    assert cold.phases == (Phase.QUEUED, Phase.LOADING, Phase.READY)
    assert_loaded_from(cold, Tier.DISK, model.checkpoint.bytes)
    assert cold.started.start_kind is StartKind.DISK
    assert cold.finished.times.load_s > 0

    warm = await ask(shared.client, "fresh")
    assert_in_order(warm)
    assert Phase.LOADING not in warm.phases
    assert warm.started.start_kind is StartKind.WARM
    assert (warm.token_ids, warm.text) == (cold.token_ids, cold.text)

    await shared.client.update("fresh", keep_alive_s=0.0)
    asleep = await until_model(shared.client, "fresh", lambda found: not found.replicas)
    assert (asleep.state, asleep.nearest_tier) == (ModelState.COLD, Tier.DRAM)

    woken = await ask(shared.client, "fresh")
    assert_in_order(woken)
    assert_loaded_from(woken, Tier.DRAM, model.checkpoint.bytes)
    assert woken.started.start_kind is StartKind.DRAM
    assert woken.token_ids == cold.token_ids


def assert_in_order(answer: Answer) -> None:
    """Progress, one start, deltas without a gap, one end that agrees with them."""
    kinds = [type(event) for event in answer.events]
    assert kinds == sorted(kinds, key=[Progress, Started, Delta, Finished].index)
    seen = 0
    for delta in answer.deltas:
        assert delta.seq == seen
        seen += len(delta.token_ids)
    finished = answer.finished
    assert finished.completion_tokens == seen == 4
    assert finished.reason is FinishReason.LENGTH
    assert (finished.start_kind, finished.worker_id) == (answer.started.start_kind, answer.started.worker_id)
    assert 0 < finished.time_to_first_token_s <= finished.total_s


def assert_loaded_from(answer: Answer, tier: Tier, size_bytes: int) -> None:
    """The fraction grows to 1, and all of it comes from one tier."""
    loads = [progress.load for progress in answer.progress if progress.load]
    assert {load.tier for load in loads} == {tier}
    assert {load.bytes_total for load in loads} == {size_bytes}
    fractions = [load.bytes_done / load.bytes_total for load in loads]
    assert fractions[-1] == 1
    assert all(earlier <= later for earlier, later in pairwise(fractions))


async def test_eight_first_requests_cause_one_load(shared: Running) -> None:
    await shared.deployed("llama", "crowd")
    loads_before = loads_logged(shared, "crowd")
    answers = await asyncio.gather(*(ask(shared.client, "crowd") for _ in range(8)))
    assert loads_before == 0
    assert loads_logged(shared, "crowd") == 1
    assert len({answer.started.worker_id for answer in answers}) == 1
    assert len({answer.token_ids for answer in answers}) == 1
    model = await shared.client.get("crowd")
    assert [replica.worker_id for replica in model.replicas] == [answers[0].started.worker_id]


def loads_logged(shared: Running, model: str) -> int:
    """How many loads of a model the scheduler's log speaks of."""
    log = shared.cluster.process("scheduler-1").log.read_text()
    return sum('"replica ready"' in line and f'"{model}"' in line for line in log.splitlines())


async def test_the_catalogue_knows_models_that_nobody_has_loaded(shared: Running) -> None:
    deployed = await shared.deployed("llama", "asleep")
    listed = {model.name: model for model in await shared.client.list()}
    assert listed["asleep"] == deployed == await shared.client.get("asleep")
    assert (deployed.state, deployed.replicas) == (ModelState.COLD, ())
    assert deployed.checkpoint.architecture == "LlamaForCausalLM"
    assert deployed.checkpoint.kv_bytes_per_token > 0


async def test_a_chat_is_rendered_with_the_models_template_and_a_seed_repeats_its_answer(shared: Running) -> None:
    await shared.deployed("llama")
    wishes = SamplingWishes(temperature=1.0, seed=7, max_tokens=8, ignore_eos=True)
    turns = [ChatMessage("user", "The tide is")]
    answers = [await whole(shared.client.chat("llama", turns, wishes)) for _ in range(2)]
    plain = await ask(shared.client, "llama", wishes)
    other = await whole(shared.client.chat("llama", turns, replace(wishes, seed=8)))
    assert answers[0].token_ids == answers[1].token_ids != other.token_ids
    assert answers[0].started.prompt_tokens > plain.started.prompt_tokens
