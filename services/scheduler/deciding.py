"""One look: observe, decide, act."""

from dataclasses import dataclass

from prometheus_client import Counter

from mesh.errors import MeshError, NoRoom, Unreachable, Unsuitable
from mesh.facts import Kind, Member
from mesh.state.catalogue import unknown_model
from policy.actions import Action, Load, MakeWay, Move, Place, Prefetch, RefusalReason, Refuse, Unload, Yield
from policy.decide import decide
from services.scheduler.act import Commands
from services.scheduler.asked import AskedMoves
from services.scheduler.notes import Notes
from services.scheduler.prefetching import Prefetching

REFUSED = Counter("whimbrel_refusals_total", "Requests that were turned away, by why.", ["reason"])


@dataclass(frozen=True, slots=True)
class Deciding:
    """Of one leadership."""

    commands: Commands
    prefetching: Prefetching
    notes: Notes
    asked: AskedMoves

    def look(self) -> float | None:
        """Does what there is to do now. The moment at which time alone would change that; None: never."""
        commands, relocating = self.commands, self.asked.relocating
        books, now = commands.books, commands.clock.now()
        relocating.look(now)
        books.observe(commands.mirror.facts)
        view = books.view(now)
        decision = decide(view, now, commands.knobs)
        for action in decision.actions:
            self._act(action)
        books.claimed(decision.claims)
        books.look_again(decision.again)
        books.queues.be_patient(decision.patience)
        stirred = books.stirred(view)
        commands.end_unwanted_loads(view, stirred)
        self.prefetching.end_unwanted()
        commands.room.tell(stirred)
        self.notes.look()
        self.asked.look()
        return min((at_s for at_s in (decision.look_again_s, relocating.next_s()) if at_s is not None), default=None)

    def _act(self, action: Action) -> None:
        commands = self.commands
        match action:
            case Place(number, spot):
                commands.room.place(number, spot, self._member(Kind.WORKER, spot.worker_id))
            case Refuse(number, reason, retry_after_s):
                commands.room.refuse(number, self._refusal(number, reason, retry_after_s))
            case Yield(spots, to):
                commands.books.yielding.add(spots, to)
            case MakeWay(plan):
                commands.books.moving.add(plan)
            case Move(number, to, kind, reason):
                self.asked.relocating.begin(number, to, kind, reason)
            case Load() | Unload() if commands.mirror.stale:
                commands.books.touch_all()  # Redis is gone: nobody knows whether we still lead, so what is loaded stays
            case Load():
                commands.load(action, self._member(Kind.STORE, action.store_id).address)
            case Unload():
                commands.unload(action)
            case Prefetch():
                self.prefetching.begin(action)

    def _member(self, kind: Kind, member_id: str) -> Member:
        return self.commands.mirror.facts.members[f"{kind}/{member_id}"]

    def _refusal(self, number: str, reason: RefusalReason, retry_after_s: float | None) -> MeshError:
        asked, knobs = self.commands.room.waiting[number].waiting, self.commands.knobs
        model, tenant = asked.model, asked.tenant
        REFUSED.labels(reason).inc()
        if reason is RefusalReason.UNKNOWN_MODEL:
            return unknown_model(model)
        limits = {"hold_s": knobs.hold_s, "most": knobs.max_waiting, "share": knobs.tenant_requests}
        text = REFUSALS[reason].format(model=model, tenant=tenant, **limits)
        metadata = {"model": model}
        if reason is RefusalReason.TENANT_FULL:
            metadata |= {"tenant": tenant, "limit": str(knobs.tenant_requests)}
        return REFUSED_AS.get(reason, NoRoom)(text, reason=reason, retry_after_s=retry_after_s, metadata=metadata)


REFUSED_AS: dict[RefusalReason, type[MeshError]] = {
    RefusalReason.NO_CHECKPOINT: Unreachable,
    RefusalReason.VERSION_GONE: Unsuitable,
}
REFUSALS = {
    RefusalReason.TOO_LARGE: "no worker has enough memory for {model!r}, even when empty; add a larger one",
    RefusalReason.QUEUE_FULL: "{most} requests wait for {model!r} already; try again later or add workers",
    RefusalReason.TENANT_FULL: "tenant {tenant!r} has {share} requests already, the most at once; wait for one to end",
    RefusalReason.HELD_TOO_LONG: "no place for {model!r} within {hold_s:.0f} s; try again later or add workers",
    RefusalReason.TOO_LATE: "a first token of {model!r} cannot be expected in time; allow more, or keep one ready",
    RefusalReason.NO_CHECKPOINT: "no store that is alive holds the checkpoint of {model!r}",
    RefusalReason.VERSION_GONE: "the version of {model!r} that began the answer is nowhere any more; ask anew",
}
