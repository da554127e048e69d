"""A model that only embeds: a text encoder, or a language model without its head, as transformers runs it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from mesh.checkpoint.architecture import body_options
from mesh.facts import RunnerKind
from mesh.requests import Pooling
from services.worker.engine.adapter import Adapter
from services.worker.engine.errors import NotGenerative, UnsupportedAdapter, UnsupportedArchitecture
from services.worker.engine.inputs import check_tokens
from services.worker.engine.model import construct, release
from services.worker.engine.pooling import pooled
from services.worker.engine.request import EngineRequest, ReplicaStats, TokenStep


def build_encoder(
    config: PreTrainedConfig,
    architecture: str,
    tensors: Sequence[str],
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """A body like model.build()'s, of the class `architecture`, for weights of the names `tensors`."""
    made = getattr(transformers, architecture)
    options: Mapping[str, Any] = body_options(architecture, tensors)
    try:
        return construct(made._from_config, config, dtype, device, **options)
    except (KeyError, ValueError) as error:
        raise UnsupportedArchitecture(f"{architecture} cannot be built: {error}") from error


class EncoderReplica:
    """Whole sequences in, vectors out: no KV is kept and nothing is generated."""

    context_tokens: int

    def __init__(self, name: str, module: PreTrainedModel, context_tokens: int) -> None:
        module.train(False)
        self.name, self.module, self.context_tokens = name, module, context_tokens
        self.vocabulary = len(module.get_input_embeddings().get_parameter("weight"))

    @property
    def has_work(self) -> bool:
        """Embedding is queued beside the replica."""
        return False

    def check(self, request: EngineRequest) -> None:
        """Always NotGenerative."""
        raise NotGenerative(f"{self.name} embeds texts and cannot go on with one; call Embed, or deploy another model")

    def stats(self, name: str = "") -> ReplicaStats:
        """Nothing ever runs or waits here."""
        return ReplicaStats(0, 0, 0, 0, 0, 0, 0, 0, runner=RunnerKind.ENCODER)

    def add(self, request: EngineRequest) -> list[TokenStep]:
        """Never called: `check` refuses every request."""
        raise NotGenerative(request.request_id)

    def add_adapter(self, adapter: Adapter) -> None:
        """Always UnsupportedAdapter."""
        raise UnsupportedAdapter(f"{self.name} only embeds, and takes no adapter")

    def remove_adapter(self, name: str) -> list[TokenStep]:
        """There is none."""
        return []

    def cancel(self, request_id: str) -> list[TokenStep]:
        """There is none."""
        return []

    def fail(self, why: str) -> list[TokenStep]:
        """There is nothing to fail."""
        return []

    def step(self) -> list[TokenStep]:
        """Nothing to do."""
        return []

    def check_input(self, tokens: Sequence[int]) -> None:
        """See Replica."""
        check_tokens(tokens, self.vocabulary, self.context_tokens)

    def unload(self) -> None:
        """Gives the weights back."""
        release(self.module)
        del self.module

    def embed(self, name: str, inputs: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
        """One vector an input, [len(inputs), width] float32."""
        lengths = [len(one) for one in inputs]
        ids, mask = padded(inputs, self.module.device)
        hidden = self.module.base_model(input_ids=ids, attention_mask=mask)[0]
        return pooled(hidden[mask.bool()], lengths, pooling)


def padded(inputs: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, [len(inputs), longest] each. Which token pads does not matter: it is masked, and
    where positions are counted by it, so many real tokens stand before it."""
    rows = [torch.tensor(one) for one in inputs]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids.to(device), mask.to(device)
