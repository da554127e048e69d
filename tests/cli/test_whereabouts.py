"""Where bytes lie, in words."""

import pytest

from cli.whereabouts import nearest, whereabouts
from mesh.facts import CheckpointFacts, Tier


@pytest.mark.parametrize(
    ("held", "text"),
    [
        (CheckpointFacts("d", 1000, Tier.DRAM, 1000, 1000), "dram"),
        (CheckpointFacts("d", 1000, Tier.DRAM, 400, 1000), "dram"),
        (CheckpointFacts("d", 1000, Tier.DISK, 1000, 0), "disk"),
        (CheckpointFacts("d", 1000, Tier.DISK, 1000, 620), "disk, dram 62 %"),
        (CheckpointFacts("d", 1000, Tier.ORIGIN, 400, 100), "disk 40 %, dram 10 %"),
        (CheckpointFacts("d", 1000, Tier.ORIGIN, 0, 0), "origin"),
        (CheckpointFacts("d", 1000, Tier.DISK, 1000, 1), "disk, dram 1 %"),
        (CheckpointFacts("d", 1000, Tier.DISK, 1000, 999), "disk, dram 99 %"),
    ],
)
def test_the_nearest_whole_tier_is_named_and_what_part_is_nearer(held: CheckpointFacts, text: str) -> None:
    assert whereabouts(held) == text


def test_the_nearest_of_several_stores_counts_and_then_the_one_with_more_in_memory() -> None:
    disk, part = CheckpointFacts("d", 10, Tier.DISK, 10, 0), CheckpointFacts("d", 10, Tier.DISK, 10, 6)
    assert nearest([disk, part]) is part
    assert nearest([part, whole := CheckpointFacts("d", 10, Tier.DRAM, 0, 10)]) is whole
    assert nearest([]) is None
