"""A cluster of leases, facts and a catalogue, for a real scheduler. Nobody calls its members: none is a process."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.series import BenchmarkBroken
from mesh.facts import (
    CheckpointFacts,
    CheckpointSummary,
    Kind,
    Member,
    ModelEntry,
    ReplicaFacts,
    ReplicaState,
    StoreFacts,
    Tier,
    WorkerFacts,
)
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.leases import Membership
from mesh.state.mirror import Mirror
from services.worker.report import Report

NODE, WORKERS, MODELS, SLOTS = "paper", 4, 32, 256
WEIGHTS_BYTES, KV_BYTES = 2 << 30, 1 << 30
LEASE_S, PATIENCE_S = 5.0, 30.0


class Papers:
    """A worker's lease and facts: its replicas are ready, and run what was sent to them. They are told as a real
    worker tells them."""

    def __init__(self, membership: Membership, models: list[ModelEntry]) -> None:
        self._models = models
        self._running: Counter[str] = Counter()  # by digest
        self._report = Report(membership, self._facts)
        self._report.life()

    def runs(self, digest: str, change: int) -> None:
        """One request more, or one less."""
        self._running[digest] += change
        self._report.load()

    def _facts(self) -> WorkerFacts:
        replicas = tuple(
            ReplicaFacts(
                one.name,
                one.checkpoint.digest,
                ReplicaState.READY,
                WEIGHTS_BYTES + KV_BYTES,
                running=self._running[one.checkpoint.digest],
            )
            for one in self._models
        )
        memory_bytes = MODELS // WORKERS * (WEIGHTS_BYTES + KV_BYTES)
        return WorkerFacts("host", memory_bytes, KV_BYTES, SLOTS, replicas)


@asynccontextmanager
async def published(state: State) -> AsyncIterator[Mapping[str, Papers]]:
    """Workers by id, beside a store and a catalogue, once the state shows them; until the block ends."""
    models = [await Catalogue(state).add(_model(number)) for number in range(MODELS)]
    held = tuple(CheckpointFacts(one.checkpoint.digest, WEIGHTS_BYTES, Tier.DISK) for one in models)
    store, papers = Member(Kind.STORE, "store", NODE, "store:1", store=StoreFacts(0, 0, 0, held)), dict[str, Papers]()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Membership(state, store, LEASE_S))
        for number in range(WORKERS):
            member = Member(Kind.WORKER, f"worker-{number}", NODE, f"worker-{number}:1")
            membership = await stack.enter_async_context(Membership(state, member, LEASE_S))
            papers[member.id] = Papers(membership, models[number::WORKERS])
        async with Mirror(state).running() as mirror:
            seen = await mirror.until(lambda facts: all(m.worker for m in facts.of_kind(Kind.WORKER)), PATIENCE_S)
        if not seen:
            raise BenchmarkBroken("the workers' facts do not come")
        yield papers


def name(number: int) -> str:
    """Of a model."""
    return f"model-{number}"


def _model(number: int) -> ModelEntry:
    model = name(number)
    checkpoint = CheckpointSummary(f"{model}@1", WEIGHTS_BYTES, "LlamaForCausalLM", "bfloat16", 4096, 32, 291, 131072)
    return ModelEntry(model, checkpoint, "/models", None, created_s=0.0, updated_s=0.0)
