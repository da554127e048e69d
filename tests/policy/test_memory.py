"""Whatever workers come, go and change: they are found in the order that a plain search puts them in."""

import random

import pytest

from policy.memory import Account, Memory

NODES = ("n1", "n2", "n3")
Known = dict[str, tuple[str, Account, int]]  # node, account and loads, by worker


def change(memory: Memory, known: Known, chance: random.Random) -> None:
    """One worker."""
    name = f"w{chance.randrange(12)}"
    if chance.random() < 0.1:
        memory.drop(name)
        known.pop(name, None)
        return
    node = known[name][0] if name in known and chance.random() < 0.95 else chance.choice(NODES)
    account = Account(
        free_bytes=chance.randrange(-2, 5), leaving_bytes=chance.randrange(2), idle_bytes=chance.randrange(3)
    )
    before, loads = known.get(name), chance.randrange(3)
    known[name] = node, account, loads
    roomier = before is None or account.room_bytes > before[1].room_bytes
    assert memory.put(name, node, account, loads) is roomier


@pytest.mark.parametrize("seed", range(6))
def test_workers_stand_in_order_of_what_they_have_and_then_of_their_names(seed: int) -> None:
    memory, chance = Memory(), random.Random(seed)
    known: Known = {}
    for _ in range(300):
        change(memory, known, chance)
        least = chance.randrange(-1, 4)
        free = sorted((-account.free_bytes, name) for name, (_, account, _) in known.items())
        room = sorted((-account.room_bytes, name) for name, (_, account, _) in known.items())
        assert list(memory.freest(least)) == [name for negative, name in free if -negative >= least]
        assert list(memory.roomiest(least)) == [name for negative, name in room if -negative >= least]
        two = chance.sample(NODES, 2)
        near = [(negative, name) for negative, name in room if known[name][0] in two]
        assert list(memory.roomiest_of(two, least)) == [name for negative, name in near if -negative >= least]
        here = [(loads, -one.free_bytes, name) for name, (node, one, loads) in known.items() if node == two[0]]
        assert list(memory.least_loaded(two[0])) == [name for _, _, name in sorted(here)]
