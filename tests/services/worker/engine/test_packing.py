from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mesh.memory import use_huge_pages
from services.worker.engine.batch import Limits
from services.worker.engine.model import probe_kv
from services.worker.engine.numerics import FAST, LEVELS, Numerics
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.packing import PASSES, PackBudget, Packing
from tests.services.worker.engine.tiny import BLOCK_TOKENS, FAMILIES, body, greedy, prompt, request, run, tokens_of

PLENTY = 64 << 20


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def packing_replica(family: str, budget: PackBudget, numerics: Numerics = FAST) -> PackedReplica:
    module = body(family)
    spec = probe_kv(module, BLOCK_TOKENS)
    return PackedReplica(
        family,
        family,
        module,
        64 * spec.block_bytes,
        spec=spec,
        limits=Limits(batch_tokens=24),
        numerics=numerics,
        packing=budget,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_stay_the_same_while_weights_are_packed_and_afterwards(family: str) -> None:
    budget = PackBudget(PLENTY)
    model = packing_replica(family, budget)
    prompts = {f"r{n}": prompt(n) for n in (5, 40, 9)}
    produced = run(model, [request(name, ids) for name, ids in prompts.items()], steps_between=3)
    assert model.stats().steps > PASSES
    assert budget.left_bytes < PLENTY
    assert tokens_of(produced) == {name: greedy(family, ids, 24) for name, ids in prompts.items()}


def test_an_unloaded_replica_gives_the_bytes_back_and_leaves_its_module_as_it_was() -> None:
    budget = PackBudget(PLENTY)
    model = packing_replica("llama", budget)
    module = model.module
    run(model, [request("r", prompt(9))])
    packed = [home for home in module.modules() if "forward" in vars(home)]
    assert packed
    model.unload()
    assert budget.left_bytes == PLENTY
    assert not [home for home in module.modules() if "forward" in vars(home)]


def test_what_the_budget_does_not_hold_is_not_packed() -> None:
    module = body("llama")
    one_layer = sum(p.nbytes for n, p in module.named_parameters() if "layers.0" in n)
    budget = PackBudget(one_layer * 2 // 3)
    model = packing_replica("llama", budget)
    assert tokens_of(run(model, [request("r", prompt(9))]))["r"] == greedy("llama", prompt(9), 24)
    assert 0 <= budget.left_bytes < one_layer * 2 // 3


@pytest.mark.parametrize("level", [level for level in LEVELS if LEVELS[level].tile])
def test_where_tokens_must_have_the_same_bits_on_every_path_nothing_is_packed(level: object) -> None:
    budget = PackBudget(PLENTY)
    run(packing_replica("llama", budget, LEVELS[level]), [request("r", prompt(9))])  # type: ignore[index]
    assert budget.left_bytes == PLENTY


class Shared(nn.Module):
    """Three layers on the same rows, of which one may have a bias; then one more on what the first gave."""

    def __init__(self, *, bias: bool = False, again: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.q, self.k, self.v = (
            nn.Linear(32, 24, bias=bias),
            nn.Linear(32, 8, bias=False),
            nn.Linear(32, 8, bias=False),
        )
        self.out, self.again = nn.Linear(24, 32), again
        self.requires_grad_(False)

    def forward(self, rows: Tensor) -> Tensor:
        q, k, v = self.q(rows), self.k(rows), self.v(rows)
        done: Tensor = self.out(q) + torch.cat([k, v, k, v], -1)
        return done + torch.cat([self.k(done)] * 4, -1) if self.again else done


def packed(module: nn.Module, rows: Tensor) -> Packing:
    packing = Packing(module, PackBudget(PLENTY))
    for _ in range(PASSES + 2):
        packing.advance()
        module(rows)
    return packing


@pytest.mark.parametrize(
    ("module", "products"),
    [
        (Shared(), 2),  # q, k and v; out
        (Shared(bias=True), 4),  # a bias for some
        (Shared(again=True), 4),  # k reads something else too
    ],
)
def test_layers_that_read_the_same_rows_become_one_product_where_they_can(module: nn.Module, products: int) -> None:
    rows = torch.randn(1, 5, 32)
    expected = module(rows)
    packing = packed(module, rows)
    assert len(packing._products) == products
    for _ in range(2):
        assert torch.allclose(module(rows), expected, atol=1e-5)
    assert torch.allclose(module(rows[:, :1]), expected[:, :1], atol=1e-5)


def test_layers_of_one_product_called_one_by_one_and_out_of_order_give_their_own_part() -> None:
    module, plain = Shared(), Shared()
    packed(module, torch.randn(1, 5, 32))
    one, other = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    for name, rows in [("v", one), ("q", other), ("q", one), ("k", other), ("v", other), ("k", one)]:
        assert torch.allclose(module.get_submodule(name)(rows), plain.get_submodule(name)(rows), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("home", [nn.Linear(70, 90), nn.Linear(70, 90, bias=False), Conv1D(90, 70)])  # type: ignore[no-untyped-call]
def test_a_packed_layer_computes_what_it_did(home: nn.Module, dtype: torch.dtype) -> None:
    module = nn.Sequential(home).to(dtype).requires_grad_(False)
    rows = torch.randn(1, 7, 70, dtype=dtype)
    expected = module(rows)
    packing = packed(module, rows)
    assert packing.bytes >= home.get_parameter("weight").nbytes
    assert torch.allclose(module(rows), expected, atol=1e-5 if dtype is torch.float32 else 1e-1)
    packing.close()
    assert torch.equal(module(rows), expected)


def test_nothing_is_packed_before_the_first_pass_has_ended_and_then_a_little_in_each() -> None:
    module = nn.Sequential(*(nn.Linear(16, 16) for _ in range(2 * PASSES))).requires_grad_(False)
    packing, rows, seen = Packing(module, PackBudget(PLENTY)), torch.randn(1, 2, 16), []
    for _ in range(PASSES + 2):
        packing.advance()
        seen.append(len(packing._products))
        module(rows)
    assert seen == [0, *range(2, 2 * PASSES + 1, 2), 2 * PASSES]


def test_huge_pages_change_no_bits() -> None:
    module = nn.Sequential(nn.Linear(1024, 2048)).requires_grad_(False)
    rows = torch.randn(1, 2, 1024)
    packing = packed(module, rows)
    before = module(rows)
    use_huge_pages(torch.ops.mkldnn.data_ptr(packing._products[0]._weight), packing.bytes)
    assert torch.equal(module(rows), before)
