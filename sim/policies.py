"""Policies by name, each made anew from a seed for every run."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from policy.knobs import Knobs
from sim.judgement import Judgement
from sim.policy import Policy

POLICIES: Mapping[str, Callable[[int], Policy]] = MappingProxyType(
    {
        "whimbrel": lambda _: Judgement(Knobs()),
        "whimbrel-no-keep-alive": lambda _: Judgement(Knobs(keep_alive_s=0.0)),
    }
)
