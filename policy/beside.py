"""What requests lose to what else runs on a device: its replicas take turns on it, so a prompt takes as many times as
long as there are busy ones."""

from mesh.facts import ModelEntry
from policy.candidates import Candidate
from policy.estimate import prefill
from policy.forecast import coming
from policy.knobs import Knobs
from policy.view import View


def beside_s(view: View, entry: ModelEntry, one: Candidate, now: float, knobs: Knobs) -> float:
    """By how many seconds the first tokens of those who wait for a model, and are expected before it is ready there,
    come later, all together, than on a device of their own: prompts are computed one after another."""
    waiting = view.queues.of(entry.name)
    busy = sum([view.busy(seat) > 0 for seat in view.replicas.on(one.member.id)])
    if not busy or not waiting:
        return 0.0
    tokens = sum([request.prompt_tokens for request in waiting]) / len(waiting)
    prompt_s = view.rates.seconds(prefill(one.member.node, entry.checkpoint.digest, tokens, knobs))
    count = len(waiting) + coming(view.demand.histories.get(entry.name), now, one.estimate_s).mean
    return busy * prompt_s * count * (count + 1.0) / 2.0
