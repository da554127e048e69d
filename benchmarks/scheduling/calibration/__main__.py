"""python -m benchmarks.scheduling.calibration: measures costs, replays requests for real, and simulates the same."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.args import parser
from benchmarks.measured import measured
from benchmarks.report import say
from benchmarks.scheduling.calibration.agreement import Agreement, agreement
from benchmarks.scheduling.calibration.probe import Probe
from benchmarks.scheduling.calibration.replay import replay
from benchmarks.scheduling.calibration.scene import Scene, running
from benchmarks.scheduling.calibration.twin import simulated

QUICK_S = 40.0


def main() -> None:
    """Exit codes: 0 measured, 1 could not be."""
    options = _options()
    found = measured("scheduling.calibration", _measure(options))
    say(found.text())
    if options.json:
        say(found.json())


def _options() -> argparse.Namespace:
    made = parser("scheduling.calibration", "Replays requests on a real cluster and in the simulator.")
    made.add_argument("--workers", type=int, default=1, help="worker processes, of one thread each")
    made.add_argument("--rps", type=float, default=0.8, help="requests a second, on average")
    made.add_argument("--seconds", type=float, default=300.0, help="for which requests come; a tenth warms up")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--models", type=Path, help="directory that keeps the random models, for the next run")
    return made.parse_args()


async def _measure(options: argparse.Namespace) -> Agreement:
    seconds = QUICK_S if options.quick else options.seconds
    scene = Scene(
        workers=options.workers,
        residents=2 // options.workers,
        rps=options.rps,
        duration_s=seconds,
        warm_up_s=seconds / 10,
    )
    requests = scene.requests(options.seed)
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as scratch:
        async with running(scene, Path(scratch), options.models or Path(scratch, "models"), say) as cluster:
            say("measuring what serving and loading cost")
            probed = await Probe(cluster, options.seed).all()
            say(str(probed))
            say(f"replaying {len(requests)} requests in {scene.duration_s:g} s")
            seen = await replay(cluster.client, requests, options.seed)
            return agreement(seen, simulated(cluster, probed, requests), scene.warm_up_s)


if __name__ == "__main__":
    main()
