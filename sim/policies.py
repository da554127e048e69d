"""Policies by name, each made anew from a seed for every run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from mesh.facts import Tier
from policy.knobs import BANDWIDTHS, Knobs
from sim.baselines.best_free import BestFree
from sim.baselines.keep_alive_lru import KeepAliveLru
from sim.baselines.knative import Knative
from sim.baselines.least_loaded import LeastLoaded
from sim.baselines.locality_wait import LocalityWait
from sim.baselines.random import Random
from sim.baselines.released import Released
from sim.baselines.round_robin import RoundRobin
from sim.baselines.serverlessllm import ServerlessLlm
from sim.baselines.shepherd import Shepherd
from sim.judgement import Judgement
from sim.policy import Policy
from sim.scenarios import ASSUMED, NODE

# The others refuse nobody: so that latencies compare, we do not either. Moves are carried out here, and teach nothing:
# what tokens and links take is guessed as it is.
PATIENT = Knobs(
    moves=True,
    hold_s=1e6,
    max_waiting=1 << 20,
    prefill_token_s=ASSUMED.prefill_token_s,
    token_s=ASSUMED.step_s,
    crowding=ASSUMED.step_sequence_s / ASSUMED.step_s,
    kv_bytes_per_s=NODE.origin_bytes_per_s,
    bytes_per_s=MappingProxyType(
        {
            **BANDWIDTHS,
            Tier.ORIGIN: NODE.origin_bytes_per_s,
            Tier.DISK: NODE.disk_bytes_per_s,
            Tier.DRAM: NODE.dram_bytes_per_s,
        }
    ),
)

POLICIES: Mapping[str, Callable[[int], Policy]] = MappingProxyType(
    {
        "whimbrel": lambda _: Judgement(PATIENT),
        "whimbrel-no-keep-alive": lambda _: Judgement(replace(PATIENT, keep_alive_s=0.0)),
        "whimbrel-no-moves": lambda _: Judgement(replace(PATIENT, moves=False)),
        "whimbrel-no-copies": lambda _: Judgement(replace(PATIENT, copies=False)),
        "random": Random,
        "round-robin": lambda _: RoundRobin(),
        "least-loaded": lambda _: LeastLoaded(),
        "best-free": lambda _: BestFree(),
        "locality-wait": lambda _: LocalityWait(),
        "shepherd": lambda _: Shepherd(),
        "serverlessllm": lambda _: ServerlessLlm(),
        "serverlessllm-lazy": lambda _: ServerlessLlm(lazy=True),
        "released": lambda _: Released(),
        "knative": lambda _: Knative(),
        "keep-alive-lru": lambda _: KeepAliveLru(),
    }
)
