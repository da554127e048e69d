"""From which context on the policy would have KV sent, had it seen the moves that were measured, and nothing else."""

from collections.abc import Iterable

from benchmarks.migration.gap import Moved
from mesh import moves
from mesh.facts import CheckpointSummary
from policy.knobs import Knobs
from policy.moved import move_ended
from policy.rates import Rates
from policy.seat import Running
from policy.transfer import Route, crossover_tokens

NODE = "here"


def predicted_tokens(measured: Iterable[Moved], kv_bytes_per_token: int) -> float:
    """By the rates that these moves teach, in their order; infinity if computing is always the quicker."""
    version = CheckpointSummary("d", 0, "", "", 0, 0, 0, kv_bytes_per_token)
    route, rates, knobs = Route(NODE, NODE, version), Rates(), Knobs()
    for one in measured:
        told = moves.Moved(
            "",
            one.kind,
            tokens=one.tokens,
            bytes_sent=one.bytes_sent,
            transfer_s=one.transfer_s,
            took_s=one.took_s,
            gap_s=one.gap_s,
        )
        move_ended(rates, route, told, Running("", 0.0, prompt_tokens=one.tokens), now=0.0, knobs=knobs)
    return crossover_tokens(route, rates, knobs)
