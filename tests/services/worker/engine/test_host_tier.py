import torch

from services.worker.engine.host_tier import HostTier


def block(value: int, count_bytes: int = 4) -> torch.Tensor:
    return torch.full((count_bytes,), value, dtype=torch.uint8)


def values(tier: HostTier, *chain: bytes) -> list[int]:
    return [int(found[0]) for found in tier.find(chain)]


def test_the_least_recently_used_block_goes_first() -> None:
    tier = HostTier(12)
    for value, address in enumerate((b"a", b"b", b"c")):
        tier.keep(address, block(value))
    assert values(tier, b"a") == [0]
    tier.keep(b"d", block(3))
    assert values(tier, b"b") == []
    assert values(tier, b"a", b"c", b"d") == [0, 2, 3]
    assert tier.touch(b"a")
    tier.keep(b"e", block(4))
    assert (values(tier, b"a"), values(tier, b"c"), tier.touch(b"c")) == ([0], [], False)


def test_a_chain_is_found_as_far_as_it_is_unbroken() -> None:
    tier = HostTier(100)
    for value, address in ((1, b"a"), (3, b"c")):
        tier.keep(address, block(value))
    assert (tier.known([b"a", b"b", b"c"]), values(tier, b"a", b"b", b"c")) == (1, [1])


def test_blocks_of_other_sizes_share_the_capacity_by_bytes() -> None:
    tier = HostTier(12)
    for address in (b"a", b"b", b"c"):
        tier.keep(address, block(0))
    tier.keep(b"large", block(9, 8))
    assert (tier.cached_bytes, tier.known([b"c"]), tier.known([b"large"])) == (12, 1, 1)
    assert (tier.known([b"a"]), tier.known([b"b"])) == (0, 0)


def test_what_is_lent_takes_room_from_cached_blocks_until_it_is_given_back() -> None:
    tier = HostTier(12)
    for address in (b"a", b"b", b"c"):
        tier.keep(address, block(0))
    tier.lend(8)
    assert (tier.cached_bytes, tier.known([b"c"])) == (4, 1)
    assert (tier.has_room(4), tier.has_room(5)) == (True, False)
    tier.lend(8)  # beyond the capacity: exactness can demand it
    assert (tier.cached_bytes, tier.has_room(0)) == (0, False)
    tier.give_back(16)
    assert tier.has_room(12)


def test_a_kept_block_does_not_hold_on_to_the_rows_that_it_came_with() -> None:
    tier = HostTier(100)
    rows = torch.zeros(50, 4, dtype=torch.uint8)
    tier.keep(b"a", rows[1])
    rows.fill_(7)
    found = tier.find([b"a"])[0]
    assert (found.tolist(), found.untyped_storage().nbytes()) == ([0] * 4, 4)
