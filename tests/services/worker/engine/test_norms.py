"""Which modules a norm's kernel stands in for, by a twin of it in torch."""

import pytest
import torch
from torch import Tensor, nn

from mesh.facts import NumericsLevel
from services.worker.engine.decoding import Decoding
from services.worker.engine.norms import Norms
from services.worker.engine.numerics import LEVELS
from tests.services.worker.engine.tiny import body, greedy, prompt, replica, request, run, tokens_of


class ByTorch:
    """What norm_kernel.norm computes; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rows: Tensor, weight: Tensor, eps: float, shift: float) -> Tensor:
        self.calls += 1
        normed = rows.float() * torch.rsqrt(rows.float().pow(2).mean(-1, keepdim=True) + eps)
        return (normed * (weight.float() + shift)).to(rows.dtype) if shift else normed.to(rows.dtype) * weight


@pytest.mark.parametrize(("family", "count"), [("llama", 5), ("gemma3_text", 13), ("qwen3", 9), ("gpt2", 0)])
def test_a_models_norms_are_computed_by_the_kernel_with_the_same_tokens(family: str, count: int) -> None:
    kernel = ByTorch()
    model = replica(family, decoding=Decoding(norm=kernel))
    assert model._runner._norms is not None
    assert model._runner._norms.count == count
    tried = kernel.calls
    asked = [request(f"r{n}", prompt(n), 8, on=family) for n in (5, 17)]
    assert tokens_of(run(model, asked)) == {one.request_id: greedy(family, one.prompt_ids, 8) for one in asked}
    assert (kernel.calls - tried) % max(count, 1) == 0
    assert (kernel.calls > tried) is (count > 0)
    module = model.module
    model.unload()
    assert not [home for home in module.modules() if "forward" in vars(home)]


def test_invariant_levels_keep_the_models_own_norms() -> None:
    kernel = ByTorch()
    replica(decoding=Decoding(norm=kernel), numerics=LEVELS[NumericsLevel.BATCH_INVARIANT])
    assert not kernel.calls


class LateRMSNorm(nn.Module):
    """Adds eps where others do not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(16)), 1e-6

    def forward(self, rows: Tensor) -> Tensor:
        return self.weight * rows / (rows.pow(2).mean(-1, keepdim=True).sqrt() + self.eps)


def test_what_only_looks_like_such_a_norm_is_left_alone() -> None:
    module = nn.Sequential(LateRMSNorm())
    assert Norms(module, ByTorch()).count == 0


def test_rows_of_another_precision_go_the_models_own_way() -> None:
    module, kernel = body("llama"), ByTorch()
    norm = module.get_decoder().norm
    norms, tried = Norms(module, kernel), kernel.calls
    rows = torch.randn(1, 3, 64).half()
    with torch.inference_mode():
        assert torch.equal(norm(rows), type(norm).forward(norm, rows))
    assert kernel.calls == tried
    norms.close()
