"""A worker's cold start in a process of its own, part by part: python -m benchmarks.engine.starting

It answers with the parts of its imports, as JSON like all its answers, and then obeys a line at a time:
  load STORE_ADDRESS DIGEST  the parts from the order to the second token of an answer; then all is unloaded
  shape NAME                 the parts of pointing a model of that shape at its weights: memory that nobody touches
"""

import asyncio
import sys
from typing import IO, TYPE_CHECKING, Any

from benchmarks.answers import answers_only
from benchmarks.engine.part import Parts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from services.worker.loading.loader import Loader

LARGE = {"num_key_value_heads": 8, "vocab_size": 128_256}
SHAPES: dict[str, dict[str, Any]] = {
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"num_key_value_heads": 4, "vocab_size": 32_000, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32} | LARGE,
    "70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    | LARGE,
}
MAP_NORESERVE = 0x4000  # Linux; Python's mmap has it from 3.13 on
PROMPT = tuple(range(3, 35))


def imports() -> Parts:
    """What a worker imports before it serves."""
    parts = Parts()
    with parts.timed("torch"):
        import torch  # noqa: F401, PLC0415  importing is what is measured
    with parts.timed("transformers"):
        from transformers import AutoModelForCausalLM  # noqa: F401, PLC0415
    with parts.timed("modeling code"):
        from services.worker.loading.skeletons import preimport  # noqa: PLC0415

        preimport(["llama"])
    with parts.timed("the worker's own"):
        import services.worker.__main__  # noqa: F401, PLC0415
    return parts


async def load(loading: "Loader", store_address: str, digest: str) -> Parts:
    """A replica as a worker makes it, and the first two tokens after a prompt of 32."""
    from benchmarks.engine.ours import Direct, one  # noqa: PLC0415
    from benchmarks.worker import Unobserved  # noqa: PLC0415
    from services.worker.engine.engine import Engine  # noqa: PLC0415
    from services.worker.loading.loader import Order  # noqa: PLC0415

    parts, direct, order = Parts(), Direct(), Order("benchmark", digest, store_address)
    engine = Engine(direct.on_steps)
    engine.start()
    held = loading.load(order, Unobserved())
    with parts.timed("order to replica"):
        loaded = await held.__aenter__()
        engine.add_replica(loaded.replica)
    with parts.timed("first token"):
        first = (await asyncio.to_thread(direct.run, engine, order.replica, one(PROMPT))).answers[0]
    with parts.timed("next token"):
        await asyncio.to_thread(direct.run, engine, order.replica, one((*PROMPT, *first)))
    await asyncio.to_thread(engine.close)
    await held.__aexit__(None, None, None)
    return parts


def shape(name: str) -> Parts:
    """A Llama built, pointed at weights, emptied, and pointed at them again, as the next load does."""
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig  # noqa: PLC0415

    from services.worker.engine.model import assign, build, probe_kv, release  # noqa: PLC0415

    parts = Parts()
    with parts.timed("skeleton"):
        module = build(LlamaConfig(**SHAPES[name]), torch.bfloat16)
    views = untouched(module)
    with parts.timed("assign"):
        assign(module, views)
    with parts.timed("release"):
        release(module)
    with parts.timed("assign again"):
        assign(module, views)
    with parts.timed("probe of KV"):
        probe_kv(module)
    return parts


def untouched(module: "PreTrainedModel") -> "dict[str, Tensor]":
    """Views of the module's weights in memory that is mapped but never touched, so that 70 billion fit anywhere."""
    import mmap  # noqa: PLC0415

    import torch  # noqa: PLC0415

    tied = module.all_tied_weights_keys
    tensors = {name: tensor for name, tensor in module.state_dict().items() if name not in tied}
    size = sum(tensor.numel() for tensor in tensors.values())
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    flat = torch.frombuffer(mmap.mmap(-1, 2 * size, flags=flags), dtype=torch.bfloat16)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}


async def main(answers: IO[str]) -> None:
    """Until standard input ends."""
    answers.write(imports().json() + "\n")
    from benchmarks.worker import loader  # noqa: PLC0415
    from services.worker.settings import WorkerSettings  # noqa: PLC0415

    async with loader(WorkerSettings.load()) as loading:
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, *rest = line.split()
            parts = shape(*rest) if command == "shape" else await load(loading, *rest)
            answers.write(parts.json() + "\n")


if __name__ == "__main__":
    asyncio.run(main(answers_only()))
