"""Trying a model on the opaque runner before anybody relies on it: does a cached sequence go on as if it were computed
anew, whatever else ran in between; and how much memory does it take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from services.worker.engine.errors import UnsupportedArchitecture
from services.worker.engine.footprint import Footprint
from services.worker.engine.opaque import Held, OpaqueRunner
from services.worker.engine.opaque_state import Kind, emptied, footprint, kinds, shapes, sizes

# The two ways give logits that differ, relative to their norm, by up to 1e-5 in 32 bits and 4e-2 in bfloat16 (measured
# on 31 tiny random models of as many kinds; deeper ones will differ by more).
FARTHEST = {4: 1e-2, 2: 3e-1}  # by bytes of an element

PLAIN = "eager"  # transformers' name of attention without fused kernels


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found out about an architecture; it holds for all weights."""

    footprint: Footprint
    blank: Held  # what is held of a sequence, without its memory
    kinds: Mapping[str, Kind]  # of the tensors in it
    loose: tuple[str, ...]  # for OpaqueRunner
    attention: str  # transformers' implementation that it holds for

    @property
    def cuts_prompts(self) -> bool:
        """Whether a prompt may be computed piece by piece: not all models with state or windows go on from these with
        more than one token."""
        return not self.footprint.fixed_bytes and all(growth.window is None for growth in self.footprint.grows)


class _Contradiction(UnsupportedArchitecture):
    """What a model computes from its cache is not what it computes from its tokens."""


def prove(module: PreTrainedModel) -> Proof:
    """Runs a few tokens through a model that has its weights. UnsupportedArchitecture if that fails, or contradicts:
    also where transformers attends in plain products, which the module does from then on if only that holds."""
    try:
        return _prove(module)
    except _Contradiction:
        if module.config._attn_implementation == PLAIN:
            raise
        module.set_attn_implementation(PLAIN)
        return prove(module)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = f"{module.config.model_type}: sending a few tokens through it fails"
        raise UnsupportedArchitecture(f"{what}: {error}") from error


def _prove(module: PreTrainedModel) -> Proof:
    vocabulary = len(module.get_input_embeddings().get_parameter("weight"))
    ids = [7919 * i % vocabulary for i in range(1, 12)]
    with torch.inference_mode():
        loose = _loose(module, ids[:3], ids[3:])
        runner = OpaqueRunner(module, loose)
        _, held = runner.run(ids[:2], 2, None)
        shorter, before = sizes(held), shapes(held)
        runner.run(ids[3:], 8, None)
        continued, held = runner.run(ids[:3], 1, held)
        anew, _ = runner.run(ids[:3], 3, None)
    _agree(module, continued.float(), anew.float())
    return Proof(
        footprint(shorter, held, 3), emptied(held), kinds(before, held), loose, module.config._attn_implementation
    )


def _loose(module: PreTrainedModel, one: list[int], another: list[int]) -> tuple[str, ...]:
    """Where the model keeps a sequence's state outside its cache: attributes that every sequence replaces."""
    if not module._is_stateful:
        return ()
    runner, at_rest = OpaqueRunner(module), _attributes(module)
    runner.run(one, len(one), None)
    before = _attributes(module)
    runner.run(another, len(another), None)
    after = _attributes(module)
    changed = [name for name, value in after.items() if isinstance(value, Tensor) and before[name] is not value]
    for name in changed:
        path, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(path), leaf, at_rest[name])
    return tuple(changed)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What modules hold beside parameters and buffers, if it is a tensor or nothing yet."""
    return {
        f"{path}.{name}": value
        for path, home in module.named_modules()
        for name, value in vars(home).items()
        if value is None or isinstance(value, Tensor)
    }


def _agree(module: PreTrainedModel, continued: Tensor, anew: Tensor) -> None:
    apart = float((continued - anew).norm() / anew.norm())
    if not apart <= FARTHEST.get(module.dtype.itemsize, 0.0):  # NaN fails too
        raise _Contradiction(
            f"{module.config.model_type} does not go on from its cache as from its tokens: logits are {apart:.3g} apart"
        )
