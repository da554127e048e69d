"""Cold starts on the card: from disk once the store has been started anew, then from its memory."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from benchmarks.card.progress import Progress
from benchmarks.migration.stage import deploy
from benchmarks.report import row, say
from benchmarks.series import Series
from benchmarks.serving.stage import Answer, greedy, read
from cli.cluster import LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import ModelChange, ModelState
from mesh.facts import CheckpointSummary

MODEL = "cold"
PROMPT = "What is a whimbrel?"
KEEP_ALIVE_S = 0.2
STORE = "store-1"


@dataclass(frozen=True, slots=True)
class StartFigures:
    """Answers of one token, each of a model that no worker had, by where its weights came from."""

    checkpoint: CheckpointSummary
    import_s: float
    answers: dict[str, list[Answer]]

    def tell(self) -> None:
        """The table."""
        say(f"\nCold starts, {self.checkpoint.bytes / 1e9:.2f} GB, imported in {self.import_s:.1f} s:")
        for kind, answers in self.answers.items():
            loads = Series.of(one.started.times.load_s for one in answers)
            rates = Series.of(self.checkpoint.bytes / one.started.times.load_s / 1e9 for one in answers)
            rest = Series.of(one.first_s - one.started.times.load_s - one.started.times.queue_s for one in answers)
            row(f"first token, {kind}", Series.of(one.first_s for one in answers), "s")
            row("  of it the load", loads, "s", rates.text("GB/s"))
            row("  of it the rest", rest, "s")


async def measure_starts(
    progress: Progress, cluster: LocalCluster, client: GatewayClient, source: str, rounds: int
) -> StartFigures:
    """The model is deployed under a name of its own, and is on no worker afterwards."""
    began_s = time.perf_counter()
    model = await deploy(client, MODEL, source=source, keep_alive_s=KEEP_ALIVE_S)
    import_s = time.perf_counter() - began_s
    progress.tell(f"imported in {import_s:.1f} s; cold starts")
    answers: dict[str, list[Answer]] = {}
    await cluster.restart(STORE)
    for number in range(1 + rounds):
        answer = await _ask(client)
        kind = f"{answer.started.start_kind}, first" if not number else str(answer.started.start_kind)
        answers.setdefault(kind, []).append(answer)
        progress.tell(f"  {kind}: {answer.first_s:.3f} s, of it the load {answer.started.times.load_s:.3f} s")
    return StartFigures(model.checkpoint, import_s, answers)


async def _ask(client: GatewayClient) -> Answer:
    """One token, and then until the model is on no worker any more."""
    changes = client.watch([MODEL])  # begun before, so that what it says of the start cannot be missed
    answer = await read(client.generate(MODEL, PROMPT, greedy(1)), time.perf_counter)
    await _until_gone(changes)
    return answer


async def _until_gone(changes: AsyncGenerator[ModelChange]) -> None:
    came = False
    async with aclosing(changes):
        async for change in changes:
            cold = change.model is not None and change.model.state is ModelState.COLD
            if came and cold:
                return
            came = came or (change.model is not None and not cold)
