"""Adapters as models, from import to answer: beside their base, in its batches, and gone when nobody needs them."""

import asyncio
import re
import warnings
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cli.cluster import ClusterOptions
from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.verify import load_manifest
from mesh.clients.gateway_records import Model, SamplingWishes
from mesh.errors import NotFound
from mesh.requests import FinishReason, Guide, GuideKind, StartKind
from tests.e2e.asking import ask, begun, generate_ids, is_idle, replica_status, status, until, whole
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library, prompt_ids

TOKENS, MANY = 16, 600
WISHES = SamplingWishes(temperature=0.0, max_tokens=TOKENS)
ENDLESS = SamplingWishes(temperature=0.0, max_tokens=MANY, ignore_eos=True)
BASE = "llama"


class Tuned:
    """An adapter of the library's llama, as if trained: what PEFT saves, and what its merged model says."""

    def __init__(self, library: Library, directory: Path, seed: int) -> None:
        auto: Any = AutoModelForCausalLM
        config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted: Any = get_peft_model(auto.from_pretrained(library.source(BASE), dtype=torch.float32), config)
            torch.manual_seed(seed)
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.data.add_(torch.randn_like(parameter) * 0.2)
            adapted.save_pretrained(str(directory))
        self.source, self._merged = directory, adapted.merge_and_unload()
        self.digest = ""

    def put(self, store_dir: Path, base: str) -> None:
        """Imports it here, beside its base: a store's own import takes seconds to start."""
        manifest = load_manifest(store_dir / base)
        self.digest = import_directory(self.source, store_dir, on_progress=lambda _: None, base=manifest).digest

    def reference(self, prompt: tuple[int, ...], tokens: int) -> tuple[int, ...]:
        """What generate says, greedily."""
        with torch.inference_mode():
            ids = self._merged.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)
        return tuple(ids[0, len(prompt) :].tolist())


@pytest.fixture(scope="module")
def tuned(library: Library, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tuned]:
    """Two adapters, by the name of the model that each becomes."""
    root = tmp_path_factory.mktemp("adapters")
    return {name: Tuned(library, root / name, seed) for name, seed in (("polite", 1), ("terse", 2))}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lone(
    tmp_path_factory: pytest.TempPathFactory, library: Library, tuned: dict[str, Tuned]
) -> AsyncIterator[Running]:
    """A cluster with one worker; its store has the base and one of the adapters."""
    options = ClusterOptions(tmp_path_factory.mktemp("adapting"), workers=1, settings=SETTINGS)
    library.put(options.data_dir / "store", (BASE,))
    tuned["terse"].put(options.data_dir / "store", library.digest(BASE))
    async with running(options, library, ()) as cluster:
        yield cluster


async def deployed(lone: Running, name: str, one: Tuned, keep_alive_s: float | None = None) -> None:
    """Makes an adapter a model, once, importing it for the library's base unless the store has it."""
    base = lone.library.digest(BASE)
    if name in {model.name for model in await lone.client.list()}:
        return
    source = "" if one.digest else str(one.source)
    events = lone.client.deploy(
        name, source=source, checkpoint=one.digest, base=base if source else "", keep_alive_s=keep_alive_s
    )
    async with aclosing(events):
        (model,) = [event async for event in events if isinstance(event, Model)]
    assert model.checkpoint.base == base


async def resident(lone: Running) -> set[str]:
    """The models on the worker; "" is a base of none."""
    return {replica.model for replica in (await status(lone.cluster, "worker-1")).replicas}


async def test_an_adapter_alone_brings_its_base_answers_as_merged_and_both_go(
    lone: Running, tuned: dict[str, Tuned]
) -> None:
    prompt = prompt_ids(37)
    await deployed(lone, "brief", tuned["polite"], keep_alive_s=0.0)
    tuned["polite"].digest = (await lone.client.get("brief")).checkpoint.digest
    answer = await whole(generate_ids(lone.address, "brief", prompt, WISHES))
    assert answer.token_ids == tuned["polite"].reference(prompt, TOKENS)
    assert answer.token_ids != lone.library.reference(BASE, prompt, TOKENS)
    assert answer.started.start_kind is StartKind.DISK
    await until(lambda: resident(lone), lambda models: not models)
    await lone.client.delete("brief")


async def test_a_base_and_its_adapters_answer_together_each_in_its_own_words(
    lone: Running, tuned: dict[str, Tuned]
) -> None:
    await lone.deployed(BASE)
    for name, one in tuned.items():
        await deployed(lone, name, one)
    for name in (BASE, *tuned):  # loads them, and shows that a prompt is read with the base's tokenizer
        assert (await ask(lone.client, name)).finished.reason is FinishReason.LENGTH
    before = await replica_status(lone.cluster, "worker-1", BASE)
    lengths = {name: prompt_ids(20 + 7 * number) for number, name in enumerate((BASE, *tuned))}
    asked = [generate_ids(lone.address, name, prompt, WISHES) for name, prompt in lengths.items()]
    answers = await asyncio.gather(*map(whole, asked))
    for (name, prompt), answer in zip(lengths.items(), answers, strict=True):
        oracle = (
            tuned[name].reference(prompt, TOKENS) if name in tuned else lone.library.reference(BASE, prompt, TOKENS)
        )
        assert answer.token_ids == oracle, name
        assert answer.started.start_kind is StartKind.WARM
    after = await replica_status(lone.cluster, "worker-1", BASE)
    assert before
    assert after
    assert after.tokens - before.tokens == 3 * TOKENS
    assert after.steps - before.steps < 3 * TOKENS
    (worker,) = [member.worker for member in await lone.client.cluster() if member.worker]
    sizes = {replica.model: replica.bytes for replica in worker.replicas}
    assert sizes[BASE] > int(SETTINGS["WHIMBREL_KV_BYTES"]) > sum(sizes[name] for name in tuned)


async def test_an_adapters_answer_is_guided_by_its_bases_tokenizer(lone: Running, tuned: dict[str, Tuned]) -> None:
    await deployed(lone, "terse", tuned["terse"])
    year = SamplingWishes(temperature=1.0, seed=3, max_tokens=TOKENS, guide=Guide(GuideKind.REGEX, "[12][0-9]{3}"))
    assert re.fullmatch("[12][0-9]{3}", (await ask(lone.client, "terse", year)).text)


async def test_an_adapter_that_goes_leaves_the_others_and_a_base_that_is_deleted_stays_for_its_adapters(
    lone: Running, tuned: dict[str, Tuned]
) -> None:
    await lone.deployed(BASE)
    for name, one in tuned.items():
        await deployed(lone, name, one)
        await ask(lone.client, name)
    events = generate_ids(lone.address, "terse", prompt_ids(9), ENDLESS)
    await begun(events)
    for name in (BASE, "polite"):
        await lone.client.delete(name)
    await until(lambda: resident(lone), lambda models: "polite" not in models)
    assert await resident(lone) == {BASE, "terse"}
    rest = await whole(events)
    assert rest.finished.reason is FinishReason.LENGTH
    reference = tuned["terse"].reference(prompt_ids(9), TOKENS)
    again = await whole(generate_ids(lone.address, "terse", prompt_ids(9), WISHES))
    assert again.token_ids == reference
    await until(lambda: replica_status(lone.cluster, "worker-1", "terse"), is_idle)
    await lone.client.delete("terse")
    await until(lambda: resident(lone), lambda models: not models)
    with pytest.raises(NotFound):
        await ask(lone.client, "terse")
