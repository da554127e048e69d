"""The numbers that the policy turns on, each with its unit. Services fill them from settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mesh.facts import Tier

EQUAL: Mapping[str, float] = MappingProxyType({})
BANDWIDTHS = MappingProxyType({Tier.ORIGIN: 0.1e9, Tier.DISK: 2e9, Tier.DRAM: 10e9, Tier.DEVICE: 1e12})


@dataclass(frozen=True, slots=True)
class Knobs:
    """Limits and guesses; what takes how long is learnt from then on (rates.py)."""

    keep_alive_s: float | None = None  # an idle replica stays so long at most; None: until its memory is wanted
    horizon_s: float = 120.0  # what comes later than that makes no idle replica worth its memory
    scale_in_s: float = 60.0  # more replicas than a model needs are more than it needs for this long
    prewarm_gain: float = 1.5  # what is expected to be saved, over what is expected to be lost by it
    prewarm_io_share: float = 0.1  # of a load's time: what it is expected to cost others whom it delays
    hold_s: float = 120.0  # a request waits at most this long for a place
    max_waiting: int = 256  # requests that may wait for one model
    tenant_requests: int | None = None  # that a tenant may have at once, waiting and running; None: any number
    distrust_s: float = 5.0  # a worker that could not be reached gets no load for this long
    unfit_s: float = 60.0  # a checkpoint that could not be loaded is not tried again for an update for this long
    bytes_per_s: Mapping[Tier, float] = field(default_factory=lambda: BANDWIDTHS)
    copies: bool = True  # whether checkpoints are brought to memory before anybody waits for them
    copy_horizon_s: float = 600.0  # what comes later than that makes no copy worth its memory
    copy_wins_s: float = 1.0  # of start-up, that a copy in memory is expected to save until then, at least
    prefetch_bar_s: float = 60.0  # a store that could not prefetch something is not asked again for this long
    ageing_s: float = 30.0  # for each of these that a request has waited, it counts as of one band more
    quantum_s: float = 4.0  # device-seconds by which a tenant may be ahead of its share before others come first
    yields: bool = True  # whether busy replicas make way for a model whose requests go before theirs
    yield_s: float = 20.0  # device-seconds ahead of another at which a tenant's busy replica makes way for its model
    tenant_weights: Mapping[str, float] = field(default_factory=lambda: EQUAL)  # shares of the devices; 1 if not named
    init_s: float = 0.2  # of a start that is not bytes: skeleton, pool, first step
    unload_s: float = 0.05  # until the memory of an idle replica is free
    prefill_token_s: float = 1e-3  # of a prompt
    held_s: float = 10.0  # a request keeps its place
    moves: bool = False  # whether somebody carries moves out
    token_s: float = 0.03  # a running request gains a token
    move_wins_s: float = 0.5  # at least, and this share of the start without it (research/scheduling.md 5.3)
    move_wins_share: float = 0.2
    move_rest_s: float = 30.0  # between two moves of one request
    kv_bytes_per_s: float = 0.5e9  # of a running request's KV, from one worker to another
    copying_s: float = 0.02  # of a move that copies KV: what is not bytes
    computing_s: float = 0.01  # of a move that computes it: what is not tokens
    copy_gap_s: float = 0.01  # in an answer whose KV is copied, for the last block of it (research/kv-transfer.md 5)
    crowding: float = 0.02  # of a token's time: what each other request on the device adds to it
    make_way_s: float = 20.0  # a worker that makes way for a model is given up so long after it should have been done
