"""How long things take a piece, learnt from what they took. Logarithms are learnt, by an extended Kalman filter with a
diagonal covariance: a duration is a sum of parts, and each part learns by its share of it and by how little is known
of it. No clock: whoever keeps the books says what was seen."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from mesh.facts import Tier
from policy.pace import Pace

PRIOR_VARIANCE = 1.0  # of the logarithm: a guess is right within a factor of e
NODE_VARIANCE = 0.25  # a node that has not been seen is like the others, within a factor of 1.6
PRIOR_NOISE = 0.04  # two equal things take times 20 % apart
LEAST_NOISE = 1e-3  # 3 %
# Times a factor of 4 apart. In logarithms a mean is half the noise above the middle, so noise that is overestimated
# by d adds d * d / 4 to what is seen of it: from 4 on it would feed itself, without end.
MOST_NOISE = 2.0
SURPRISE_GAIN = 0.1  # of a deviation's excess over what was expected: to the noise, and to doubt in the rate itself
FORGETTING = 0.98  # of what is known, with each observation (docs/decisions/0025)
OUTLIER = 3.0  # deviations; what is farther off counts as if it were there
Z90 = 1.2815515655446004
MOST = 50_000  # quantities that are remembered
LEAST_S = 1e-15  # what takes no time has no logarithm


class Quantity(StrEnum):
    """What is learnt: seconds a byte, a token, or each time."""

    ORIGIN = "origin"  # a byte, over the node's network
    DISK = "disk"  # a byte
    DRAM = "dram"  # a byte
    INIT = "init"  # of a load: what is not bytes
    UNLOAD = "unload"  # of a replica
    PREFILL = "prefill"  # a token of a prompt
    HELD = "held"  # of a place: from its beginning to its end
    TOKEN = "token"  # of an answer
    KV = "kv"  # a byte of a running request's KV, to a worker of the node
    COPYING = "copying"  # of a move that copies KV: what is not bytes
    COMPUTING = "computing"  # of a move that computes it there: what is not tokens
    COPY_GAP = "copy_gap"  # in an answer that moves: beside the usual time between two tokens
    COMPUTE_GAP = "compute_gap"

    __hash__ = str.__hash__  # rates are looked up for every candidate of every decision


BYTES_OF: Mapping[Tier, Quantity] = MappingProxyType({t: Quantity(t) for t in (Tier.ORIGIN, Tier.DISK, Tier.DRAM)})


class Rate(NamedTuple):
    """One of these, on a node; `of` is an architecture, a checkpoint or a model. The node "" is the whole cluster."""

    quantity: Quantity
    node: str
    of: str = ""


@dataclass(frozen=True, slots=True)
class Portion:
    """A part of a duration: so many pieces at a rate, which is guessed for as long as nothing was seen."""

    rate: Rate
    amount: float
    guess_s: float


@dataclass(frozen=True, slots=True)
class Learnt:
    """Of one rate: seconds a piece, and the variances of its logarithm and of one observation's around it."""

    mean_s: float
    variance: float = PRIOR_VARIANCE
    noise: float = PRIOR_NOISE


@dataclass(slots=True)
class Rates:
    """What has been learnt. `changed` are those that differ from what was last saved; whoever saves them clears it."""

    learnt: dict[Rate, Learnt] = field(default_factory=dict)
    changed: set[Rate] = field(default_factory=set)
    _paces: dict[str, Pace] = field(
        default_factory=dict, repr=False, compare=False
    )  # by node, until something is learnt

    def of(self, rate: Rate, guess_s: float) -> Learnt:
        """Of this node; else of the cluster, less sure of it; else the guess."""
        if known := self.learnt.get(rate):
            return known
        if cluster := self.learnt.get(Rate(rate.quantity, "", rate.of)):
            return replace(cluster, variance=min(PRIOR_VARIANCE, cluster.variance + NODE_VARIANCE))
        return Learnt(max(LEAST_S, guess_s))

    def mean_s(self, rate: Rate, guess_s: float) -> float:
        """A piece of it, on average."""
        known = self.learnt.get(rate) or self.learnt.get(Rate(rate.quantity, "", rate.of))
        return known.mean_s if known else max(LEAST_S, guess_s)

    def byte_s(self, tier: Tier, node: str, guess_s: float) -> float:
        """The same, of a byte of a tier."""
        own_s = self.pace(node).byte_s(tier)
        known_s = self.pace("").byte_s(tier) if own_s is None else own_s
        return max(LEAST_S, guess_s) if known_s is None else known_s

    def init_s(self, node: str, architecture: str, guess_s: float) -> float:
        """The same, of what of a load is not bytes."""
        own_s = self.own_init_s(self.pace(node), node, architecture)
        known_s = self.own_init_s(self.pace(""), "", architecture) if own_s is None else own_s
        return max(LEAST_S, guess_s) if known_s is None else known_s

    def pace(self, node: str) -> Pace:
        """What loads go by on a node, as far as it was learnt there."""
        pace = self._paces.get(node)
        if pace is None:
            known = (self.learnt.get(Rate(BYTES_OF[tier], node)) for tier in (Tier.DRAM, Tier.DISK, Tier.ORIGIN))
            dram_s, disk_s, origin_s = (one.mean_s if one else None for one in known)
            pace = self._paces[node] = Pace(dram_s, disk_s, origin_s)
        return pace

    def own_init_s(self, pace: Pace, node: str, architecture: str) -> float | None:
        """Of what of a load is not bytes, as far as it was learnt on a node; `pace` is the node's."""
        if architecture not in pace.inits_s:
            known = self.learnt.get(Rate(Quantity.INIT, node, architecture))
            pace.inits_s[architecture] = known.mean_s if known else None
        return pace.inits_s[architecture]

    def seconds(self, portion: Portion) -> float:
        """What a portion takes, on average."""
        return portion.amount * self.mean_s(portion.rate, portion.guess_s)

    def recall(self, rate: Rate, learnt: Learnt) -> None:
        """What was learnt before this began."""
        self.learnt[rate] = learnt
        self._paces.pop(rate.node, None)

    def saw(self, portions: Iterable[Portion], took_s: float) -> None:
        """All of them together took so long; the cluster learns what the node does."""
        parts = [one for one in portions if one.amount > 0]
        if took_s <= 0 or not parts:
            return
        self._learn(parts, took_s)
        if parts[0].rate.node:
            self._learn([replace(one, rate=one.rate._replace(node="")) for one in parts], took_s)

    def variance(self, portions: Iterable[Portion]) -> float:
        """Of the logarithm of what they will take together."""
        parts = [one for one in portions if one.amount > 0]
        known = [self.of(one.rate, one.guess_s) for one in parts]
        spread, noise = _variances(known, _shares(parts, known))
        return spread + noise

    def _learn(self, parts: Sequence[Portion], took_s: float) -> None:
        known = [self.of(one.rate, one.guess_s) for one in parts]
        shares = _shares(parts, known)
        spread, noise = _variances(known, shares)
        total_s = sum(one.amount * rate.mean_s for one, rate in zip(parts, known, strict=True))
        reach = OUTLIER * math.sqrt(spread + noise)
        off = max(-reach, min(reach, math.log(took_s / total_s) + noise / 2))  # means, of what is log-normal
        for one, rate, share in zip(parts, known, shares, strict=True):
            self._keep(one.rate, _after(rate, share, off, spread, noise))

    def _keep(self, rate: Rate, learnt: Learnt) -> None:
        self.learnt.pop(rate, None)  # what was learnt last comes last
        self.recall(rate, learnt)
        self.changed.add(rate)
        if len(self.learnt) > MOST:
            oldest = next(iter(self.learnt))
            del self.learnt[oldest]
            self._paces.pop(oldest.node, None)
            self.changed.add(oldest)


def p90(mean_s: float, variance: float) -> float:
    """Nine in ten are quicker; of a log-normal with this mean, and this variance of its logarithm."""
    return mean_s * math.exp(Z90 * math.sqrt(variance) - variance / 2)


def _shares(parts: Sequence[Portion], known: Sequence[Learnt]) -> list[float]:
    """What each is of the whole: the derivatives of the logarithm of a sum by those of its parts."""
    each_s = [one.amount * rate.mean_s for one, rate in zip(parts, known, strict=True)]
    total_s = sum(each_s) or 1.0
    return [part_s / total_s for part_s in each_s]


def _variances(known: Sequence[Learnt], shares: Sequence[float]) -> tuple[float, float]:
    """Of the whole: from not knowing the rates, and from what no two times have in common."""
    spread = sum(share * share * rate.variance for rate, share in zip(known, shares, strict=True))
    return spread, sum(share * rate.noise for rate, share in zip(known, shares, strict=True))


def _after(rate: Learnt, share: float, off: float, spread: float, noise: float) -> Learnt:
    """One rate after an observation of the whole. Surprises make it less sure, so that a change that stays is soon
    followed; the noise is learnt as far as the rates themselves are known."""
    gain = rate.variance * share / (spread + noise)
    surprise = SURPRISE_GAIN * share * max(0.0, off * off - spread - noise)
    variance = min(PRIOR_VARIANCE, rate.variance * (1 - gain * share) / FORGETTING + surprise)
    step = SURPRISE_GAIN * share * noise / (spread + noise)
    seen = max(LEAST_NOISE, off * off - spread)
    noisy = min(MOST_NOISE, rate.noise + step * (seen - rate.noise))
    return Learnt(rate.mean_s * math.exp(gain * off), variance, noisy)
