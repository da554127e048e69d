"""Our engine in a process of its own: python -m benchmarks.engine.ours STORE_ADDRESS DIGEST

It loads the replica as a worker does, from a store that runs elsewhere, and obeys the lines of contestant.py. What
differs from a worker's defaults is in its environment.
"""

import asyncio
import sys
import threading
from typing import IO

from benchmarks.answers import answers_only
from benchmarks.engine.batch import BATCH, OUTCOME, Batch, Outcome, Watch
from benchmarks.worker import Unobserved, loader
from mesh.memory import tune_malloc
from services.worker.engine.engine import Engine
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.engine.sample import SamplingParams
from services.worker.loading.loader import Order
from services.worker.settings import WorkerSettings


class Asking:
    """One batch in the engine's hands."""

    def __init__(self, batch: Batch) -> None:
        self._unfinished = len(batch.prompts)
        self._answers: list[list[int]] = [[] for _ in batch.prompts]
        self._watch = Watch(len(batch.prompts))
        self._done = threading.Event()
        self._error = ""

    def take(self, number: int, step: TokenStep) -> None:
        """What a step gave one of its prompts; on the engine's thread."""
        self._answers[number] += step.tokens
        self._watch.first(number)
        self._error = self._error or step.error
        self._unfinished -= step.finish is not None
        if not self._unfinished:
            self._outcome = self._watch.outcome(self._answers)
            self._done.set()

    def wait(self) -> Outcome:
        """All of it. Raises RuntimeError when the engine failed."""
        self._done.wait()
        if self._error:
            raise RuntimeError(self._error)
        return self._outcome


class Direct:
    """Submits batches to an engine, one after the other."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[Asking, int]] = {}
        self._batches = 0

    def on_steps(self, steps: list[TokenStep]) -> None:
        """The engine's callback."""
        for step in steps:
            asking, number = self._asked[step.request_id]
            asking.take(number, step)

    def run(self, engine: Engine, replica: str, batch: Batch) -> Outcome:
        """One batch."""
        self._batches += 1
        params = SamplingParams(max_tokens=batch.tokens, temperature=0.0, ignore_eos=True)
        asking = Asking(batch)
        requests = [
            EngineRequest(f"{self._batches}.{number}", replica, prompt, params)
            for number, prompt in enumerate(batch.prompts)
        ]
        self._asked = {request.request_id: (asking, number) for number, request in enumerate(requests)}
        for request in requests:
            engine.submit(request)
        return asking.wait()


def one(prompt: tuple[int, ...]) -> Batch:
    """A batch that asks for one token."""
    return Batch((prompt,), 1)


async def main(answers: IO[str], store_address: str, digest: str) -> None:
    """Until standard input ends."""
    settings = WorkerSettings.load()
    direct = Direct()
    engine = Engine(direct.on_steps, threads=settings.threads or None)
    order = Order("benchmark", digest, store_address)
    async with loader(settings) as loading, loading.load(order, Unobserved()) as loaded:
        engine.start()
        engine.add_replica(loaded.replica)
        answers.write("ready\n")
        while line := await asyncio.to_thread(sys.stdin.readline):
            outcome = await asyncio.to_thread(direct.run, engine, order.replica, BATCH.validate_json(line))
            answers.write(OUTCOME.dump_json(outcome).decode() + "\n")
        await asyncio.to_thread(engine.close)


if __name__ == "__main__":
    tune_malloc()  # as a worker does
    asyncio.run(main(answers_only(), *sys.argv[1:3]))
