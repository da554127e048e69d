"""Whole sequences through a packed model at once, keeping no KV: what embedding with a language model needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedModel

from services.worker.engine.attention import Call, Chunk, Context, attending
from services.worker.engine.pool import LayerPool


@dataclass(slots=True)
class WholeStep:
    """One forward pass over sequences laid end to end, [1, T]: the pass's own keys and values are its pool."""

    chunks: list[Chunk]

    def attend(self, call: Call) -> Tensor:
        key, value = call.key, call.value
        rows = LayerPool(key.shape[1], key[0].transpose(0, 1), value[0].transpose(0, 1), key, value)
        queries = torch.split(call.query[0].transpose(0, 1), [chunk.count for chunk in self.chunks])
        parts = [chunk.attend(query, rows, call.score) for chunk, query in zip(self.chunks, queries, strict=True)]
        return torch.cat(parts)[None]


def hidden_states(module: PreTrainedModel, inputs: Sequence[Sequence[int]]) -> Tensor:
    """Of the last layer, [tokens of all inputs end to end, width]; `module` is prepared for the packed runner."""
    lengths = [len(one) for one in inputs]
    starts = [end - length for end, length in zip(accumulate(lengths), lengths, strict=True)]
    chunks = [Chunk(n, Context(n, start, None)) for n, start in zip(lengths, starts, strict=True)]
    ids = [token for one in inputs for token in one]
    positions = [position for length in lengths for position in range(length)]
    batch = torch.tensor((ids, positions)).to(module.device)
    with attending(WholeStep(chunks)):
        output = module.base_model(input_ids=batch[:1], position_ids=batch[1:], use_cache=False)
    hidden: Tensor = output[0][0]
    return hidden
