"""What a packed replica's next step computes, and room for it: plans are made in batch.py and carried out here."""

from dataclasses import replace

from services.worker.engine.arrivals import Arrivals
from services.worker.engine.batch import Limits, Paged, Plan, plan_step
from services.worker.engine.departures import Departures
from services.worker.engine.errors import PoolExhausted
from services.worker.engine.kv_cache import KVCache
from services.worker.engine.numerics import Numerics
from services.worker.engine.request import TokenStep
from services.worker.engine.roster import Roster


class NextStep:
    """Under pressure imports give way first, then the youngest that runs; one that is paused only if nothing else
    could advance."""

    def __init__(
        self,
        cache: KVCache,
        roster: Roster,
        departures: Departures,
        arrivals: Arrivals,
        *,
        limits: Limits,
        numerics: Numerics,
    ) -> None:
        self.limits = limits
        self.preemptions = 0
        self._cache, self._roster, self._numerics = cache, roster, numerics
        self._departures, self._arrivals = departures, arrivals

    def ready(self) -> Plan:
        """A plan whose sequences run and own the blocks for its spans; PoolExhausted if none could advance."""
        plan = self._plan()
        while self._relieve(plan):
            plan = self._plan()
        if not plan.spans:
            blocks = self._cache.blocks
            raise PoolExhausted(f"{blocks.idle} idle blocks of {blocks.total} let no request advance")
        self._make_room(plan)
        return plan

    def free_some(self) -> None:
        """Have one give way."""
        if self._arrivals.give_way():
            return
        if self._roster.running:
            self._preempt(self._roster.running[-1])
        else:
            self._departures.give_way()

    def ended(self) -> list[TokenStep]:
        """The imports that have given way since this was last asked."""
        return self._arrivals.ended()

    def _plan(self) -> Plan:
        return plan_step(
            self._roster.running,
            self._roster.waiting,
            idle_blocks=self._cache.blocks.idle,
            block_tokens=self._cache.block_tokens,
            limits=replace(self.limits, running=self.limits.running - len(self._arrivals)),
            prefix=self._cache.find,
            numerics=self._numerics,
        )

    def _relieve(self, plan: Plan) -> bool:
        if plan.spans and not plan.preempt:
            return False
        return self._arrivals.give_way() or (not plan.spans and self._departures.give_way())

    def _make_room(self, plan: Plan) -> None:
        for generation in plan.preempt:  # the youngest first, so that they wait in order of arrival
            self._preempt(generation)
        for _ in plan.admit:  # all prefixes before any new block: taking one may evict
            self._cache.enter(self._roster.admit())
        for span in plan.spans:
            self._cache.grow(span.generation, span.generation.kv_len + span.count)
        self._cache.settle()

    def _preempt(self, generation: Paged) -> None:
        self._roster.give_way(generation)
        self._cache.give_way(generation)
        self.preemptions += 1
