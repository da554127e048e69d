"""python -m benchmarks.card: two workers that share one card, in a cluster of real processes: cold starts, tokens a
second, and what a client and others notice of answers that move between the two."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.args import parser
from benchmarks.card.moves import measure_moves
from benchmarks.card.progress import Progress
from benchmarks.card.shapes import SHAPES
from benchmarks.card.speed import SpeedFigures, measure_speed
from benchmarks.card.starts import StartFigures, measure_starts
from benchmarks.measured import measured
from benchmarks.migration.others import measure_others
from benchmarks.migration.report import Figures, say_figures
from benchmarks.migration.stage import CLUSTER, MODEL, WORKERS, Sizes, Stage, deploy, warm
from benchmarks.migration.stream import measure_stream
from benchmarks.models import random_models
from benchmarks.report import say
from benchmarks.series import BenchmarkBroken
from cli.cluster import ClusterOptions, LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.errors import MeshError
from mesh.facts import NumericsLevel
from mesh.requests import MoveKind

DEVICES = ("host", "cuda")
PART_S = 120.0  # of one part; what has been told of it until then stays
T = TypeVar("T")
F = TypeVar("F", StartFigures, SpeedFigures)
WAYS = (
    ("sent", "KV is sent while the answer goes on", MoveKind.KV),
    ("computed", "KV is computed at the target while the answer goes on", MoveKind.TOKENS),
)


class Card:
    """What has been measured so far, each part told at once."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.moves: dict[str, Any] = {}

    async def step(self, name: str, doing: Awaitable[T]) -> T | None:
        """What it gives; None where it failed, or took too long, which is told, and does not stop the others."""
        self.progress.tell(name)
        try:
            async with asyncio.timeout(PART_S):
                return await doing
        except (MeshError, BenchmarkBroken, TimeoutError) as error:
            self.progress.fail(name, error)
            return None

    async def told(self, name: str, doing: Awaitable[F]) -> F | None:
        """A part with a table of its own."""
        figures = await self.step(name, doing)
        if figures:
            figures.tell()
        return figures

    async def moving(self, part: str, doing: Awaitable[Any]) -> None:
        """A part of what is told of moves."""
        self.moves[part] = await self.step(part, doing)
        say_figures(Figures(**{part: self.moves[part]}))


def main() -> None:
    """Exit codes: 0 measured, 1 could not be, or not all of it."""
    options = _options()
    card = measured("card", _measure(options))
    if options.json:
        say(Figures(**card.moves).json())
    if card.progress.failures:
        sys.exit("\n".join(card.progress.failures))


def _options() -> argparse.Namespace:
    made = parser("card", "Serves and moves answers on two workers that share a device.")
    made.add_argument("--device", choices=DEVICES, default="cuda" if torch.cuda.is_available() else "host")
    made.add_argument("--shape", choices=SHAPES, default="1b", help="the model's")
    made.add_argument("--numerics", choices=list(NumericsLevel), default=NumericsLevel.BATCH_INVARIANT)
    made.add_argument("--contexts", type=int, nargs="+", help="tokens of the prompts that move")
    made.add_argument("--rounds", type=int, default=3, help="moves of each context and way")
    made.add_argument("--starts", type=int, default=3, help="cold starts from memory, after one from disk; 0: none")
    made.add_argument("--models", type=Path, help="directory that keeps the random model, for the next run")
    made.add_argument("--data", type=Path, help="directory that keeps checkpoints and logs; --models has the model")
    return made.parse_args()


async def _measure(options: argparse.Namespace) -> Card:
    served, card = SHAPES[options.shape], Card(Progress())
    contexts = options.contexts or ((100, 1000) if options.quick else (100, 1000, 4000, 8000))
    sizes = Sizes(tuple(contexts), options.rounds, 4, 1.0)
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as scratch:
        (source,) = await random_models(options.models or Path(scratch), [served.spec])
        weights_bytes = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        cluster_options = ClusterOptions(
            options.data or Path(scratch),
            WORKERS,
            settings={**CLUSTER, "WHIMBREL_NUMERICS": options.numerics},
            settings_of={"worker": served.settings(options.device, weights_bytes)},
        )
        card.progress.tell("starting the cluster")
        async with LocalCluster(cluster_options) as cluster, cluster.client() as client:
            whence = await _started(card, cluster, client, source, options.starts)
            await _moving(card, client, whence, sizes)
            _tell_logs(cluster, card)
    return card


async def _started(
    card: Card, cluster: LocalCluster, client: GatewayClient, source: Path, rounds: int
) -> Mapping[str, str]:
    """From where the model can be deployed next."""
    if rounds:
        starting = measure_starts(card.progress, cluster, client, str(source), rounds)
        if figures := await card.told("cold starts", starting):
            return {"checkpoint": figures.checkpoint.digest}
    return {"source": str(source)}


async def _moving(card: Card, client: GatewayClient, whence: Mapping[str, str], sizes: Sizes) -> None:
    """What moves do first, since it takes longest."""
    model = await card.step("on both workers", deploy(client, MODEL, min_replicas=WORKERS, **whence))
    if model is None:
        return
    stage = Stage(client, sizes, model.checkpoint.kv_bytes_per_token)
    await card.step("there and back", warm(stage))
    for part, name, kind in WAYS:
        await card.moving(part, measure_moves(card.progress, stage, name, kind))
    await card.moving("stream", measure_stream(stage))
    await card.moving("others", measure_others(stage))
    await card.told("speed", measure_speed(stage))


def _tell_logs(cluster: LocalCluster, card: Card) -> None:
    """What the processes said, where something failed."""
    for process in cluster.processes if card.progress.failures else ():
        say(f"the end of {process.program.id}'s log:\n{process.tail()}")


if __name__ == "__main__":
    main()
