"""Runs one sequence at a time as transformers' own generate does, on a cache of the model's own kind: for models that
cannot share a ragged batch. What lies inside a cache is opaque_state.py's to know."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from mesh.checkpoint.runners import cache_name
from services.worker.engine.errors import UnsupportedArchitecture

MOVING = "max_seq_len_cached"  # where dynamic rotary embeddings note the longest sequence that they have seen

Held = list[Any]
"""What a model keeps of one sequence: its cache, then what it would leave in its modules."""


class OpaqueRunner:
    """A model on transformers' own attention. Calls must come from one thread at a time. `loose` names attributes of
    modules in which the model keeps a sequence's state, as path and name with a dot between."""

    def __init__(self, module: PreTrainedModel, loose: Iterable[str] = ()) -> None:
        name = cache_name(module)
        if name is None:
            raise UnsupportedArchitecture(f"{module.config.model_type} takes no cache of what came before")
        if getattr(module.config, "prompt_length", 0):
            raise UnsupportedArchitecture(
                f"{module.config.model_type} puts a prompt of its own before what it goes on with"
            )
        self.module, self._cache_name = module, name
        self._takes_positions = "position_ids" in inspect.signature(module.forward).parameters
        self._moving = [one for one in module.modules() if hasattr(one, MOVING) and "dynamic" in _rope_types(one)]
        homes = [name.rpartition(".") for name in loose]
        self._loose = [(module.get_submodule(path), name) for path, _, name in homes]
        self._at_rest = [getattr(home, name) for home, name in self._loose]

    @property
    def stretches(self) -> bool:
        """Whether it goes on beyond the positions of its configuration."""
        return bool(self._moving)

    @property
    def depends_on_length(self) -> bool:
        """Whether a key depends on how long the sequence was when it was computed: then generated tokens have to be
        computed again one by one, behind a prompt that is computed at once."""
        return bool(self._moving) or any("longrope" in _rope_types(one) for one in self.module.modules())

    def run(self, tokens: Sequence[int], count: int, held: Held | None) -> tuple[Tensor, Held]:
        """Compute the last `count` of `tokens`; `held` is of the others, None if there are none, and is changed.

        Logits [vocabulary] of the last token, and what is held of all.
        """
        first = held is None
        held = [self._fresh(), *self._at_rest] if held is None else held
        self._settle()
        self._install(held[1:])
        try:
            output = self.module(**self._inputs(tokens, count, held[0], first), return_dict=True)
            after = output.get(self._cache_name)  # some return theirs only once, some another one
            return output.logits[0, -1], [held[0] if after is None else after, *self._left()]
        finally:
            self._install(self._at_rest)

    def release(self) -> None:
        """Leave the modules as they were built."""
        self._settle()

    def _inputs(self, tokens: Sequence[int], count: int, cache: Any, first: bool) -> dict[str, Any]:
        ids = torch.tensor([tokens], device=self.module.device)
        options = {self._cache_name: cache}
        if self._takes_positions:
            options["position_ids"] = torch.arange(len(tokens), device=ids.device)[None]
        mask = torch.ones_like(ids)
        prepare: Any = self.module.prepare_inputs_for_generation
        inputs: dict[str, Any] = prepare(
            ids, next_sequence_length=count, is_first_iteration=first, attention_mask=mask, use_cache=True, **options
        )
        return inputs

    def _fresh(self) -> Any:
        """An empty cache, or None for a model that makes its own."""
        takes_default: Any = self.module._supports_default_dynamic_cache
        if not takes_default():
            return None
        return DynamicCache(config=self.module.config.get_text_config(decoder=True))

    def _install(self, values: Sequence[Any]) -> None:
        for (home, name), value in zip(self._loose, values, strict=True):
            setattr(home, name, value)

    def _left(self) -> list[Any]:
        return [getattr(home, name) for home, name in self._loose]

    def _settle(self) -> None:
        """Forget the lengths of other sequences."""
        for rotary in self._moving:
            for name in [name for name in vars(rotary) if name.endswith(MOVING)]:
                setattr(rotary, name, rotary.original_max_seq_len)
            for name in [name for name in rotary._buffers if name.endswith("original_inv_freq")]:
                rotary._buffers[name.replace("original_", "")] = rotary.get_buffer(name).clone()


def _rope_types(module: nn.Module) -> set[str]:
    kind = getattr(module, "rope_type", None)
    return set(kind.values()) if isinstance(kind, dict) else {str(kind)}
