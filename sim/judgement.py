"""Our own policy in the simulator: the very `decide` of the scheduler's loop, on the very view that its books build."""

from mesh.facts import Priority
from policy.actions import Load, MakeWay, Yield
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Waiting
from sim.policy import ClusterState, Plan, WaitingRequest
from sim.published import Published
from sim.telling import Telling

PRIORITIES = tuple(Priority)


class Judgement:
    """What services.scheduler does around `decide`, without the waiting."""

    name = "whimbrel"

    def __init__(self, knobs: Knobs) -> None:
        self._knobs, self._books = knobs, Books(knobs.tenant_weights)
        self._telling = Telling(self._books, knobs, self.waiting)
        self._published = Published()

    def decide(self, state: ClusterState, now: float) -> Plan:
        """The policy's decision."""
        facts = self._published.facts(state)
        self._books.observe(facts)
        self._telling.happened(state, now)
        decision = decide(self._books.view(now), now, self._knobs)
        for action in decision.actions:
            self._telling.acts(action, facts, now)
        self._books.claimed(decision.claims)
        self._books.look_again(decision.again)
        self._books.queues.be_patient(decision.patience)
        done = (action for action in decision.actions if not isinstance(action, MakeWay | Yield | Load))
        loads, turn_s = self._telling.turns.begin(now)
        moments = [at_s for at_s in (decision.look_again_s, turn_s) if at_s is not None]
        return Plan((*done, *loads), min(moments, default=None))

    def waiting(self, one: WaitingRequest) -> Waiting:
        """A request as the policy knows it; one that has a token already is in time."""
        return Waiting(
            request_id=one.id,
            model=one.model,
            since_s=one.since_s,
            tenant=one.tenant,
            priority=PRIORITIES[min(one.priority, len(PRIORITIES) - 1)],
            deadline_s=None if one.emitted_tokens else one.deadline_s,
            prompt_tokens=one.prompt_tokens + one.emitted_tokens,
        )
