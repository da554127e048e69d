"""Every kind of model that the factory writes loads and generates with stock transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo.models import DEMO_MODEL, KINDS, ModelSpecBroken, write_random_llama, write_tiny


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def load(directory: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(directory, dtype="auto"), AutoTokenizer.from_pretrained(directory)


def continue_greedily(directory: Path, prompt: str, tokens: int = 12) -> list[int]:
    model, tokenizer = load(directory)
    encoded = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**encoded, max_new_tokens=tokens, do_sample=False)
    assert isinstance(ids, torch.Tensor)
    return ids[0, encoded["input_ids"].shape[1] :].tolist()


def stored_names(directory: Path) -> set[str]:
    names: set[str] = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as shard:
            names.update(shard.keys())
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_loads_and_generates_text_that_depends_on_the_prompt(kind: str, tmp_path: Path) -> None:
    directory = write_tiny(kind, tmp_path)
    first, second = (continue_greedily(directory, prompt) for prompt in ("The tide is", "A map of the"))
    assert first != second
    assert len(set(first)) > 2, "a model that repeats itself hides errors in positions and caches"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_agrees_with_the_tokenizer_on_sizes_and_ids(kind: str, tmp_path: Path) -> None:
    model, tokenizer = load(write_tiny(kind, tmp_path))
    assert model.get_input_embeddings().weight.shape == (len(AutoTokenizer.from_pretrained(DEMO_MODEL)), 64)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    once, twice, other = (
        (write_tiny("llama", tmp_path / name, seed=seed) / "model.safetensors").read_bytes()
        for name, seed in (("once", 1), ("twice", 1), ("other", 2))
    )
    assert once == twice
    assert once != other
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator must be left alone"


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_embedding_is_stored_only_when_it_is_not_tied(tied: bool, tmp_path: Path) -> None:
    directory = write_tiny("llama", tmp_path, tied=tied)
    assert ("lm_head.weight" in stored_names(directory)) is not tied
    model, _ = load(directory)
    shared = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert shared is tied


def test_a_small_shard_size_gives_several_files_with_the_same_tensors(tmp_path: Path) -> None:
    whole = write_tiny("qwen2", tmp_path / "whole")
    sharded = write_tiny("qwen2", tmp_path / "sharded", max_shard_size="200KB")
    assert (sharded / "model.safetensors.index.json").exists()
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert stored_names(sharded) == stored_names(whole)
    assert continue_greedily(sharded, "Low tide") == continue_greedily(whole, "Low tide")


def test_size_and_dtype_are_as_asked(tmp_path: Path) -> None:
    model, _ = load(write_tiny("qwen3", tmp_path, hidden=96, layers=3, dtype=torch.bfloat16))
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (96, 3)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_a_random_llama_has_about_the_size_asked_for(tmp_path: Path) -> None:
    directory = write_random_llama(tmp_path, 0.012, max_shard_size="10MB")
    model, _ = load(directory)
    assert model.num_parameters() == pytest.approx(12e6, rel=0.1)
    assert len(list(directory.glob("*.safetensors"))) > 1
    assert continue_greedily(directory, "Low tide")


@pytest.mark.parametrize("ask", [{"kind": "lama"}, {"kind": "llama", "hidden": 60}, {"kind": "llama", "layers": 0}])
def test_a_model_that_cannot_be_built_is_refused_and_nothing_is_written(ask: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelSpecBroken):
        write_tiny(directory=tmp_path / "model", **ask)
    assert not (tmp_path / "model").exists()


def test_a_random_llama_too_small_to_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSpecBroken, match="write_tiny"):
        write_random_llama(tmp_path / "model", 0.001)
