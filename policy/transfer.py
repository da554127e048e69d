"""What it takes to have a running request's KV at another worker: copied, or computed there from its tokens. Pure.

Both go on while the request runs where it is; at the end it stands still for what has come meanwhile. Formulas and
crossover: research/kv-transfer.md 5, by rates that were learnt from earlier moves.
"""

import math
from dataclasses import dataclass

from mesh.facts import CheckpointSummary, RunnerKind
from mesh.requests import MoveKind
from policy.estimate import prefill
from policy.knobs import Knobs
from policy.rates import Portion, Quantity, Rate, Rates
from policy.seat import Running

BURNT = 0.1  # a second of a device or of a disk that is spent for a move, in seconds of start-up (research 5.2)
SETUPS = {MoveKind.KV: Quantity.COPYING, MoveKind.TOKENS: Quantity.COMPUTING}
LINKS = ("same", "other")  # within the target's node, and from another
GAPS = {MoveKind.KV: Quantity.COPY_GAP, MoveKind.TOKENS: Quantity.COMPUTE_GAP}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request of some version comes from and goes to, by nodes."""

    source: str
    target: str
    version: CheckpointSummary


@dataclass(frozen=True, slots=True)
class Transfer:
    """One way of it, in seconds: until the target can go on, how long the request stands still for it, and how long the
    target's device works."""

    kind: MoveKind
    took_s: float
    gap_s: float
    device_s: float = 0.0

    @property
    def score_s(self) -> float:
        """What ways are compared by: others pay for what the device does meanwhile."""
        return self.took_s + self.gap_s + BURNT * self.device_s


def quicker(route: Route, tokens: float, rates: Rates, knobs: Knobs) -> Transfer:
    """The better way for a request of so many tokens, of prompt and answer together."""
    if not has_kv(route.version):
        return computed(route, tokens, rates, knobs)
    ways = computed(route, tokens, rates, knobs), copied(route, tokens, rates, knobs)
    return min(ways, key=lambda way: way.score_s)


def has_kv(version: CheckpointSummary) -> bool:
    """Whether something can be copied: of an opaque replica there always is, though nobody says how much."""
    return version.kv_bytes_per_token > 0 or version.runner is RunnerKind.OPAQUE


def copied(route: Route, tokens: float, rates: Rates, knobs: Knobs) -> Transfer:
    """Its KV crosses the wire. An opaque replica's crosses at once, and what came meanwhile is computed."""
    took_s = sum(map(rates.seconds, copy_work(route, tokens * route.version.kv_bytes_per_token, knobs)))
    after_s = _after_s(route, took_s, rates, knobs) if route.version.runner is RunnerKind.OPAQUE else 0.0
    return Transfer(MoveKind.KV, took_s, _gap_s(MoveKind.KV, route, knobs.copy_gap_s + after_s, rates), after_s)


def computed(route: Route, tokens: float, rates: Rates, knobs: Knobs) -> Transfer:
    """Its tokens are computed at the target; on an opaque replica only once the request has stopped."""
    work = compute_work(route, tokens, knobs)
    took_s, device_s = sum(map(rates.seconds, work)), rates.seconds(work[0])
    if route.version.runner is RunnerKind.OPAQUE:
        return Transfer(MoveKind.TOKENS, took_s, took_s, device_s)
    after_s = _after_s(route, took_s, rates, knobs)
    return Transfer(MoveKind.TOKENS, took_s, _gap_s(MoveKind.TOKENS, route, after_s, rates), device_s)


def copy_work(route: Route, size_bytes: float, knobs: Knobs) -> tuple[Portion, Portion]:
    """Of a copy: the bytes, and what is not bytes."""
    link = Rate(Quantity.KV, route.target, LINKS[route.source != route.target])
    return Portion(link, size_bytes, 1 / knobs.kv_bytes_per_s), _setup(MoveKind.KV, route, knobs.copying_s)


def compute_work(route: Route, tokens: float, knobs: Knobs) -> tuple[Portion, Portion]:
    """Of computing: the tokens, and what is not tokens."""
    setup = _setup(MoveKind.TOKENS, route, knobs.computing_s)
    return prefill(route.target, route.version.digest, tokens, knobs), setup


def tokens_of(one: Running, version: CheckpointSummary, rates: Rates, now: float, knobs: Knobs) -> float:
    """Of prompt and answer of a request that runs, as far as one can tell from outside."""
    token_s = rates.mean_s(Rate(Quantity.TOKEN, "", version.digest), knobs.token_s)
    tokens = one.prompt_tokens + max(0.0, now - one.placed_s) / token_s
    return min(tokens, version.max_context) if version.max_context else tokens


def crossover_bytes_per_s(kv_bytes_per_token: int, prefill_token_s: float) -> float:
    """The rate of a link beyond which copying a long context is quicker than computing it."""
    return kv_bytes_per_token / prefill_token_s


def crossover_tokens(route: Route, rates: Rates, knobs: Knobs) -> float:
    """The context from which on a copy is quicker to have; infinity if none is. The link's rate is above its crossover
    where a token is sent sooner than computed."""
    (kv, copying), (token, computing) = copy_work(route, 1.0, knobs), compute_work(route, 1.0, knobs)
    bytes_per_s = 1 / rates.seconds(kv)
    version, token_s, ahead_s = route.version, rates.seconds(token), rates.seconds(copying) - rates.seconds(computing)
    if not has_kv(version) or bytes_per_s <= crossover_bytes_per_s(version.kv_bytes_per_token, token_s):
        return math.inf
    won_s = token_s - version.kv_bytes_per_token / bytes_per_s  # by each token; rounding may leave nothing
    return max(0.0, ahead_s / won_s) if won_s > 0 else math.inf


def _setup(kind: MoveKind, route: Route, guess_s: float) -> Portion:
    return Portion(Rate(SETUPS[kind], route.target), 1, guess_s)


def _after_s(route: Route, took_s: float, rates: Rates, knobs: Knobs) -> float:
    """To compute what a request has gained in the meantime."""
    token_s = rates.mean_s(Rate(Quantity.TOKEN, "", route.version.digest), knobs.token_s)
    return rates.seconds(prefill(route.target, route.version.digest, took_s / token_s, knobs))


def _gap_s(kind: MoveKind, route: Route, guess_s: float, rates: Rates) -> float:
    return rates.mean_s(Rate(GAPS[kind], "", route.version.digest), guess_s)
