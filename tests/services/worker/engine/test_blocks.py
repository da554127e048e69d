import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.worker.engine.blocks import BlockAllocator, PrefixHit, chain_hash
from services.worker.engine.errors import PoolExhausted
from services.worker.engine.table import BlockTable

TOTAL, SIZE = 12, 4


def chain(conversation: int, length: int) -> list[bytes]:
    """Addresses of `length` blocks; conversations share their first two."""
    names = [0, 0, *[conversation] * 20][:length]
    addresses: list[bytes] = []
    for name in names:
        addresses.append(chain_hash(addresses[-1] if addresses else b"root", [name, len(addresses)]))
    return addresses


class Sequences(RuleBasedStateMachine):
    """Sequences that start from a cached prefix, grow, publish and end, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = BlockAllocator(TOTAL - 3, TOTAL)
        self.live: list[tuple[BlockTable, list[bytes]]] = []
        self.parked: set[int] = set(range(TOTAL - 3, TOTAL))  # those never used come after all others
        self.contents: dict[int, bytes] = {}  # what was written last into each published block

    @precondition(lambda self: len(self.live) < 4)
    @rule(conversation=st.integers(1, 3), length=st.integers(1, 8))
    def start(self, conversation: int, length: int) -> None:
        table, addresses = BlockTable(self.allocator, SIZE), chain(conversation, 8)
        hit = self.allocator.peek(addresses[:length])
        before = self.allocator.idle
        for block in self.allocator.match(addresses[:length]):
            table.adopt(block)
        assert len(table.blocks) == hit.blocks
        assert self.allocator.idle == before - hit.idle
        assert [self.contents[block] for block in table.blocks] == addresses[: hit.blocks]
        self.live.append((table, addresses))

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 3), tokens=st.integers(1, 32), expected=st.integers(1, 40))
    def grow(self, pick: int, tokens: int, expected: int) -> None:
        table, addresses = self.live[pick % len(self.live)]
        had = len(table.blocks)
        if table.missing(tokens) > self.allocator.idle:
            return
        table.grow(tokens, expected)
        assert len(table.blocks) == max(had, -(-tokens // SIZE))
        for i in range(had, len(table.blocks)):
            self.contents[table.blocks[i]] = addresses[i]
            self.allocator.publish(table.blocks[i], addresses[i])

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 3))
    def end(self, pick: int) -> None:
        table, _ = self.live.pop(pick % len(self.live))
        freed, before = table.sole(), self.allocator.idle
        table.clear()
        assert self.allocator.idle == before + freed

    @rule(count=st.integers(0, 4))
    def park(self, count: int) -> None:
        if count <= self.allocator.idle:
            blocks = self.allocator.park(count)
            assert len(set(blocks) - self.parked) == count
            self.parked |= set(blocks)

    @rule(count=st.integers(0, 4))
    def unpark(self, count: int) -> None:
        self.allocator.unpark(count)
        self.parked -= set(sorted(self.parked)[:count])

    @invariant()
    def every_block_is_owned_or_parked_or_idle(self) -> None:
        owned = {block for table, _ in self.live for block in table.blocks}
        assert not owned & self.parked
        assert self.allocator.total == TOTAL - len(self.parked)
        assert self.allocator.idle == self.allocator.total - len(owned)
        assert {block for block in range(TOTAL) if not self.allocator.is_idle(block)} == owned | self.parked

    @invariant()
    def slots_are_where_the_blocks_say(self) -> None:
        for table in [table for table, _ in self.live if table.blocks]:
            tokens = len(table.blocks) * SIZE
            expected = [block * SIZE + i for block in table.blocks for i in range(SIZE)]
            assert list(table.slot_range(0, tokens)) == expected
            assert table.slots(tokens).tolist() == expected
            run = expected == list(range(expected[0], expected[0] + tokens))
            assert table.first_slot == (expected[0] if run else -1)

    def teardown(self) -> None:
        for table, _ in self.live:
            table.clear()
        assert self.allocator.idle == self.allocator.total


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_block_cannot_be_released_twice_nor_taken_twice() -> None:
    allocator = BlockAllocator(2)
    allocator.take(1)
    with pytest.raises(PoolExhausted):
        allocator.take(1)
    allocator.release([1])
    with pytest.raises(AssertionError):
        allocator.release([1])
    assert allocator.idle == 2


def test_no_lane_in_a_full_pool() -> None:
    allocator = BlockAllocator(2)
    for block in allocator.lane(2):
        allocator.take(block)
    with pytest.raises(PoolExhausted):
        allocator.lane(1)


def test_sequences_that_grow_in_turn_each_stay_one_run() -> None:
    allocator = BlockAllocator(64)
    tables = [BlockTable(allocator, SIZE) for _ in range(4)]
    for tokens in range(1, 60):
        for table in tables:
            table.grow(tokens, 60)
    assert all(table.first_slot >= 0 for table in tables)


def test_a_new_sequence_takes_the_place_of_the_least_recently_used() -> None:
    allocator = BlockAllocator(8)
    for name in (1, 2):
        table, addresses = BlockTable(allocator, SIZE), [chain_hash(b"", [name, i]) for i in range(4)]
        table.grow(16, 16)
        for block, address in zip(table.blocks, addresses, strict=True):
            allocator.publish(block, address)
        table.clear()
    BlockTable(allocator, SIZE).grow(16, 16)
    assert allocator.peek([chain_hash(b"", [1, 0])]) == PrefixHit(0, 0)
    assert allocator.peek([chain_hash(b"", [2, i]) for i in range(4)]) == PrefixHit(4, 4)


def test_blank_blocks_are_taken_before_any_cached_ones() -> None:
    allocator = BlockAllocator(8)
    cached = BlockTable(allocator, SIZE)
    cached.grow(16, 16)
    chain_of_cached = chain(1, 4)
    for block, address in zip(cached.blocks, chain_of_cached, strict=True):
        allocator.publish(block, address)
    cached.clear()
    short = BlockTable(allocator, SIZE)
    short.grow(4, 16)  # looks forward to the four blank ones, but uses one
    short.clear()
    BlockTable(allocator, SIZE).grow(16, 16)
    assert allocator.peek(chain_of_cached) == PrefixHit(4, 4)


def test_a_fragmented_pool_still_gives_every_block() -> None:
    allocator = BlockAllocator(16)
    for block in range(0, 16, 2):
        allocator.take(block)
    table = BlockTable(allocator, SIZE)
    table.grow(8 * SIZE, 8 * SIZE)
    assert sorted(table.blocks) == list(range(1, 16, 2))
    assert table.first_slot == -1


def test_blank_blocks_are_parked_from_the_end_and_cached_ones_last() -> None:
    allocator = BlockAllocator(8)
    for block in (7, 1):
        allocator.take(block)
        allocator.publish(block, bytes([block]))
        allocator.release([block])
    assert allocator.park(6) == [6, 5, 4, 3, 2, 0]
    assert (allocator.evicted(), allocator.total) == ([], 2)
    assert allocator.park(1) == [7]
    assert allocator.evicted() == [(7, bytes([7]))]
    with pytest.raises(PoolExhausted):
        allocator.park(2)
    allocator.unpark(2)
    assert [block for block in range(8) if allocator.is_idle(block)] == [0, 1, 2]
    allocator.unpark(100)
    assert allocator.idle == allocator.total == 8


def test_blocks_that_were_never_used_cost_nothing_and_come_last() -> None:
    allocator = BlockAllocator(2, most=1 << 40)
    allocator.park(1)
    allocator.unpark(3)
    assert (allocator.total, allocator.idle, allocator.is_idle(3), allocator.is_idle(4)) == (4, 4, True, False)
    table = BlockTable(allocator, SIZE)
    table.grow(4 * SIZE, 4 * SIZE)
    assert table.blocks == [0, 1, 2, 3]


def test_addresses_depend_on_everything_before() -> None:
    assert chain_hash(b"a", [1, 2]) != chain_hash(b"b", [1, 2])
    assert chain_hash(b"a", [1, 2]) != chain_hash(b"a", [2, 1])
    assert chain_hash(b"a", [1, 2]) == chain_hash(b"a", [1, 2])
