"""In which models a kernel puts on rotary positions, by a twin of it in torch."""

import pytest
import torch
from torch import Tensor

from services.worker.engine.decoding import Decoding
from services.worker.engine.rotations import Rotations
from tests.services.worker.engine.tiny import body, greedy, prompt, replica, request, run, tokens_of


class ByTorch:
    """What rotary_kernel.rotate computes; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self._turned(query, cos, sin), self._turned(key, cos, sin)

    def _turned(self, rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        left, right = rows.chunk(2, -1)
        return rows * cos[:, None] + torch.cat([-right, left], -1) * sin[:, None]


@pytest.mark.parametrize(
    ("family", "layers"), [("llama", 2), ("gemma3_text", 2), ("phi", 2), ("gpt_oss", 0), ("cohere", 0), ("opt", 0)]
)
def test_the_kernel_turns_where_it_turns_as_the_model_does(family: str, layers: int) -> None:
    kernel = ByTorch()
    model = replica(family, decoding=Decoding(rotate=kernel))
    assert model._runner._rotations is not None
    assert model._runner._rotations.count == layers
    tried = kernel.calls
    asked = [request(f"r{n}", prompt(n), 8, on=family) for n in (5, 17)]
    assert tokens_of(run(model, asked)) == {one.request_id: greedy(family, one.prompt_ids, 8) for one in asked}
    assert (kernel.calls > tried) is (layers > 0)
    module = model.module
    model.unload()
    assert not [home for home in module.modules() if "forward" in vars(home)]


def test_other_models_of_the_architecture_keep_their_own() -> None:
    kernel, other = ByTorch(), body("llama")
    rotations = Rotations(body("llama"), torch.device("cpu"), torch.float32, kernel)
    tried = kernel.calls
    rows = torch.tensor([prompt(9)])
    with torch.inference_mode():
        other.set_attn_implementation("sdpa")
        other(rows)
    assert rotations.count == 2
    assert kernel.calls == tried
