"""The engine called directly: python -m benchmarks.serving.engine_process MODEL DIGEST STORE_ADDRESS TOKENIZER_FILE

Loads the replica as a worker does, from the same memory of the same store, says "ready", and then runs one batch for
each line of stdin: a Batch as JSON in, an Elapsed as JSON out.
"""

import asyncio
import sys
import threading
import time

from tokenizers import Tokenizer

from benchmarks.child import reply
from benchmarks.serving.batch import BATCH, ELAPSED, Batch, Elapsed
from benchmarks.worker import Unobserved, loader
from mesh.memory import tune_malloc
from services.worker.engine.engine import Engine
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.engine.sample import SamplingParams
from services.worker.loading.loader import Order
from services.worker.settings import WorkerSettings


class Direct:
    """Submits batches to an engine and waits for their ends."""

    def __init__(self, replica: str, tokenizer: Tokenizer) -> None:
        self._replica, self._tokenizer = replica, tokenizer
        self._tokens = self._unfinished = self._batches = 0
        self._done = threading.Event()

    def on_steps(self, steps: list[TokenStep]) -> None:
        """The engine's callback."""
        self._tokens += sum(len(step.tokens) for step in steps)
        self._unfinished -= sum(step.finish is not None for step in steps)
        if not self._unfinished:
            self._done.set()

    def run(self, engine: Engine, batch: Batch) -> Elapsed:
        """One batch."""
        self._done.clear()
        self._tokens, self._unfinished, self._batches = 0, len(batch.prompts), self._batches + 1
        params = SamplingParams(max_tokens=batch.tokens, temperature=0.0, ignore_eos=True)
        began_s = time.perf_counter()
        for number, prompt in enumerate(batch.prompts):
            ids = tuple(self._tokenizer.encode(prompt).ids)
            engine.submit(EngineRequest(f"{self._batches}.{number}", self._replica, ids, params))
        self._done.wait()
        return Elapsed(time.perf_counter() - began_s, self._tokens)


async def main(model: str, digest: str, store_address: str, tokenizer_file: str) -> None:
    """Serves batches until stdin ends."""
    settings = WorkerSettings.load()
    order = Order(model, digest, store_address)
    direct = Direct(order.replica, Tokenizer.from_file(tokenizer_file))
    engine = Engine(direct.on_steps, threads=settings.threads or None)
    async with loader(settings) as loading, loading.load(order, Unobserved()) as loaded:
        engine.start()
        engine.add_replica(loaded.replica)
        reply("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            reply(ELAPSED.dump_json(await asyncio.to_thread(direct.run, engine, BATCH.validate_json(line))).decode())
        await asyncio.to_thread(engine.close)


if __name__ == "__main__":
    tune_malloc()  # as a worker does
    asyncio.run(main(*sys.argv[1:5]))
