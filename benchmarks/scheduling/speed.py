"""How fast the simulator is: our policy on the market, alone, in processor time."""

from dataclasses import dataclass
from time import process_time

from sim.compare import OURS
from sim.policies import POLICIES
from sim.run import simulate
from sim.scenarios import MARKETS


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one run. Seconds of simulated time, and of this processor's."""

    simulated_s: float
    processor_s: float
    decisions: int
    events: int

    @property
    def times_real(self) -> float:
        """How many times faster than what it simulates."""
        return self.simulated_s / self.processor_s

    def text(self) -> str:
        """One line."""
        return (
            f"simulator: {self.simulated_s:.0f} s of 16 devices in {self.processor_s:.2f} s, {self.times_real:.0f} "
            f"times real time; {self.decisions} decisions, {self.events} events"
        )


def measure_speed() -> Speed:
    """Of the first seed's requests, once they are made."""
    scenario = MARKETS["market"]
    requests, policy = scenario.workload(0).requests(), POLICIES[OURS](0)
    began_s = process_time()
    run = simulate(scenario.cluster, requests, policy)
    return Speed(run.simulated_s, process_time() - began_s, run.decisions, run.events)
