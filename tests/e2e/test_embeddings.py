"""Texts to vectors through gateway, scheduler, worker and store: those that transformers alone would make."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoTokenizer

from mesh.clients.gateway_records import Embedded, Vectors
from mesh.errors import InvalidRequest, MeshError, Unsuitable
from mesh.requests import Pooling, StartKind
from tests.e2e.asking import PROMPT, deploy
from tests.e2e.conftest import Running
from tests.e2e.finder import CONTEXT, CORPUS, hidden_states, write_finder

LONG = "the ship sails " * CONTEXT


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder's source."""
    return write_finder(tmp_path_factory.mktemp("finder") / "finder")


async def embedded(
    shared: Running, model: str, texts: list[str], pooling: Pooling | None = None, *, truncate: bool = False
) -> tuple[torch.Tensor, Embedded]:
    """Every vector, and the end."""
    rows: list[tuple[float, ...]] = []
    async with aclosing(shared.client.embed(model, texts, pooling, truncate=truncate)) as events:
        async for event in events:
            match event:
                case Vectors(first, values):
                    assert first == len(rows)
                    rows += values
                case Embedded():
                    return torch.tensor(rows), event
    raise AssertionError("the stream ended without an end")


async def test_an_encoder_gives_the_vectors_that_its_files_ask_for(shared: Running, finder: Path) -> None:
    model = await deploy(shared.client, "finder", source=str(finder))
    texts = [*CORPUS, "curlews"] * 20  # more than go to a worker at once
    found, end = await embedded(shared, "finder", texts)
    tokenizer = AutoTokenizer.from_pretrained(finder)
    ids = await asyncio.to_thread(lambda: [tokenizer(text)["input_ids"] for text in texts])
    expected = torch.stack([hidden_states(finder, one).mean(0) for one in ids[:4]] * 20)
    torch.testing.assert_close(found, normalize(expected), atol=2e-6, rtol=1e-5)
    assert end.prompt_tokens == sum(map(len, ids))
    assert end.checkpoint == model.checkpoint.digest
    assert end.start_kind is not StartKind.WARM
    first, again = await embedded(shared, "finder", texts[:1], Pooling.CLS)
    workers = [member.worker for member in await shared.client.cluster() if member.worker]
    sizes = [replica.bytes for worker in workers for replica in worker.replicas if replica.model == "finder"]
    assert sizes == [model.checkpoint.bytes]  # no KV is booked for it
    torch.testing.assert_close(first[0], normalize(hidden_states(finder, ids[0])[0], dim=0), atol=2e-6, rtol=1e-5)
    assert again.start_kind is StartKind.WARM


async def test_what_an_encoder_cannot_do_is_refused_by_name(shared: Running, finder: Path) -> None:
    await deploy(shared.client, "strict", source=str(finder))
    with pytest.raises(InvalidRequest, match="set truncate") as refused:
        await embedded(shared, "strict", ["curlews", LONG])
    assert [violation.field for violation in refused.value.violations] == ["texts[1]"]
    _, end = await embedded(shared, "strict", [LONG], truncate=True)
    assert end.prompt_tokens == CONTEXT
    with pytest.raises(InvalidRequest):
        await embedded(shared, "strict", [])
    with pytest.raises(Unsuitable, match="call Embed"):
        async with aclosing(shared.client.generate("strict", PROMPT)) as events:
            await anext(events)


async def test_an_unknown_pooling_must_be_chosen(shared: Running, tmp_path: Path) -> None:
    source = await asyncio.to_thread(write_finder, tmp_path / "weighted", "pooling_mode_weightedmean_tokens")
    await deploy(shared.client, "weighted", source=str(source))
    with pytest.raises(MeshError) as refused:
        await embedded(shared, "weighted", ["curlews"])
    assert refused.value.reason == "UNKNOWN_POOLING"
    found, _ = await embedded(shared, "weighted", ["curlews"], Pooling.MEAN)
    assert found.shape == (1, 32)


async def test_a_model_that_generates_embeds_by_its_last_token(shared: Running) -> None:
    await shared.deployed("qwen2")
    found, _ = await embedded(shared, "qwen2", [PROMPT, "the sea"])
    source = shared.library.source("qwen2")
    tokenizer = AutoTokenizer.from_pretrained(source)
    expected = [hidden_states(source, tokenizer(text)["input_ids"])[-1] for text in (PROMPT, "the sea")]
    torch.testing.assert_close(found, normalize(torch.stack(expected)), atol=2e-6, rtol=1e-5)
