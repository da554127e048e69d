"""The proof that two loaders ended with the same bytes."""

import torch

from benchmarks.loading.checksum import checksum, contents, size_bytes

GENERATOR = torch.Generator().manual_seed(1)
EXPERTS = [torch.randn(4, 6, generator=GENERATOR).to(torch.bfloat16) for _ in range(3)]
APART = {f"expert.{index}": expert for index, expert in enumerate(EXPERTS)}
FUSED = {"experts": torch.stack(EXPERTS)}


def test_the_order_of_the_names_does_not_matter() -> None:
    assert checksum(APART) == checksum(dict(reversed(APART.items())))


def test_one_changed_bit_changes_both_checksums() -> None:
    spoilt = {name: tensor.clone() for name, tensor in APART.items()}
    spoilt["expert.1"].view(torch.int16)[2, 3] ^= 1
    assert checksum(spoilt) != checksum(APART)
    assert contents(spoilt) != contents(APART)


def test_tensors_that_changed_places_are_found() -> None:
    swapped = {**APART, "expert.0": APART["expert.1"], "expert.1": APART["expert.0"]}
    assert checksum(swapped) != checksum(APART)


def test_a_view_counts_as_what_it_shows_and_not_as_its_storage() -> None:
    strided = torch.zeros(8, 6, dtype=torch.bfloat16)
    strided[::2] = EXPERTS[0]
    assert checksum({"expert.0": strided[::2]}) == checksum({"expert.0": EXPERTS[0]})


def test_fused_experts_have_the_contents_of_the_same_experts_apart() -> None:
    assert contents(FUSED) == contents(APART)
    assert checksum(FUSED) != checksum(APART)
    assert size_bytes(FUSED) == size_bytes(APART) == 3 * 4 * 6 * 2
