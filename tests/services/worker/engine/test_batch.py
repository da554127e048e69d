from hypothesis import given
from hypothesis import strategies as st

from services.worker.engine.batch import Limits, Paged, Plan, plan_step
from services.worker.engine.blocks import BlockAllocator, PrefixHit
from services.worker.engine.table import BlockTable
from tests.services.worker.engine.tiny import request

SIZE = 4


class Pool:
    """An allocator with generations in it: `kv` of their tokens are computed already."""

    def __init__(self, blocks: int) -> None:
        self.allocator = BlockAllocator(blocks)

    def generation(self, tokens: int, kv: int = 0) -> Paged:
        table = BlockTable(self.allocator, SIZE)
        table.grow(kv, kv)
        return Paged(request("r", (1,) * tokens), [1] * tokens, 100, frozenset(), table, kv)

    def plan(
        self,
        running: list[Paged],
        waiting: list[Paged],
        limits: Limits,
        hits: dict[Paged, PrefixHit] | None = None,
    ) -> Plan:
        found = hits or {}
        return plan_step(
            running,
            waiting,
            idle_blocks=self.allocator.idle,
            block_tokens=SIZE,
            limits=limits,
            prefix=lambda generation: found.get(generation, PrefixHit()),
        )


def counts(plan: Plan) -> dict[Paged, int]:
    return {span.generation: span.count for span in plan.spans}


def test_decoding_goes_before_prefill_and_prefill_takes_what_is_left() -> None:
    pool = Pool(50)
    prefill, decode = pool.generation(30, 4), pool.generation(9, 8)
    plan = pool.plan([prefill, decode], [], Limits(batch_tokens=8))
    assert [(span.generation, span.count) for span in plan.spans] == [(decode, 1), (prefill, 7)]


def test_waiting_ones_are_admitted_in_order_while_tokens_and_places_last() -> None:
    pool = Pool(50)
    first, second, third = pool.generation(6), pool.generation(6), pool.generation(6)
    assert counts(pool.plan([], [first, second, third], Limits(batch_tokens=10))) == {first: 6, second: 4}
    assert counts(pool.plan([], [first, second, third], Limits(batch_tokens=100, running=2))) == {first: 6, second: 6}


def test_a_cached_prefix_costs_no_tokens_and_only_its_idle_blocks() -> None:
    pool = Pool(5)
    cached = pool.generation(18)  # 5 blocks, 4 of which are found
    assert counts(pool.plan([], [cached], Limits(), {cached: PrefixHit(4, 4)})) == {cached: 2}
    pool = Pool(6)
    running, cached = pool.generation(14, 13), pool.generation(18)
    assert pool.plan([running], [cached], Limits(), {cached: PrefixHit(4, 0)}).admit == (cached,)
    assert pool.plan([running], [cached], Limits(), {cached: PrefixHit(4, 1)}).admit == ()


def test_under_pressure_the_youngest_gives_way() -> None:
    pool = Pool(4)
    old, young = pool.generation(9, 8), pool.generation(9, 8)
    plan = pool.plan([old, young], [], Limits())
    assert (plan.preempt, counts(plan)) == ((young,), {old: 1})


def test_what_a_preempted_one_had_been_granted_goes_to_the_older() -> None:
    pool = Pool(8)
    old, middle, young = pool.generation(30, 16), pool.generation(20, 5), pool.generation(5, 4)
    plan = pool.plan([old, middle, young], [], Limits(batch_tokens=9))  # the young one would have taken the last block
    assert (plan.preempt, counts(plan)) == ((young,), {old: 8, middle: 1})


def test_nothing_is_admitted_in_a_step_that_preempts() -> None:
    pool = Pool(6)
    old, young, new = pool.generation(9, 8), pool.generation(17, 16), pool.generation(1)
    assert pool.plan([old, young], [new], Limits()).admit == ()
    young.table.clear()
    assert pool.plan([old], [new], Limits()).admit == (new,)


def test_no_more_run_than_one_step_has_tokens_for() -> None:
    pool = Pool(50)
    running = [pool.generation(9, 8) for _ in range(3)]
    assert pool.plan(running[:2], [pool.generation(1)], Limits(batch_tokens=3)).admit != ()
    assert pool.plan(running, [pool.generation(1)], Limits(batch_tokens=3)).admit == ()


def test_one_that_would_leave_no_block_for_those_running_waits() -> None:
    pool = Pool(4)
    running, new = pool.generation(8, 7), pool.generation(8)
    assert pool.plan([running], [new], Limits()).admit == ()
    assert pool.plan([], [new], Limits()).admit == (new,)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 29)), max_size=6),
    st.lists(st.integers(1, 30), max_size=4),
    st.integers(8, 40),
    st.integers(1, 40),
)
def test_a_plan_never_promises_more_than_there_is_and_the_oldest_always_advances(
    running_sizes: list[tuple[int, int]], waiting_sizes: list[int], blocks: int, batch_tokens: int
) -> None:
    pool = Pool(blocks)
    running = []
    for tokens, kv in running_sizes:
        if -(-min(kv, tokens - 1) // SIZE) <= pool.allocator.idle:
            running.append(pool.generation(tokens, min(kv, tokens - 1)))
    waiting = [pool.generation(tokens) for tokens in waiting_sizes]
    plan = pool.plan(running, waiting, Limits(batch_tokens, 5))
    assert sum(span.count for span in plan.spans) <= batch_tokens
    for victim in plan.preempt:
        assert victim in running
        victim.table.clear()
    for span in plan.spans:
        assert 0 < span.count <= span.generation.pending
        assert span.generation not in plan.preempt
        span.generation.table.grow(span.generation.kv_len + span.count, 0)  # raises if none is idle
    singles = [span.count == 1 for span in plan.spans]
    assert singles == sorted(singles, reverse=True)
    if running and batch_tokens > len(running):
        assert running[0] in counts(plan)
    elif waiting and not running:
        assert waiting[0] in plan.admit
